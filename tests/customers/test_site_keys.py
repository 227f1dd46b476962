"""Keys of sites: what the configuration takes, what a key set is read as, and how rarely its server is called, whatever visitors send."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import SecretStr, ValidationError

from hub.app import configure
from hub.config import ConfigError, SiteSettings, load
from hub.customers.site_keys import (
    AGAIN,
    FRESH,
    KEPT,
    MAX_SET,
    KeysAway,
    KeySets,
    UnusableKeySet,
    fitting,
    read_key_set,
    secrets_of,
    unfetchable,
)
from hub.http import GuardedHttp
from tests.conftest import ROOT

RSA_KEY = rsa.generate_private_key(65_537, 2_048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
SECRETS = ["the-first-secret-of-at-least-32-characters", "the-second-secret-of-at-least-32-characters"]


def public(key: Any, **members: Any) -> dict[str, Any]:
    """A public key as a member of a key set; a member given as None is left out."""
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    jwk: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    return {name: value for name, value in (jwk | {"kid": "one", "use": "sig"} | members).items() if value is not None}


def key_set(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


# --- the configuration ---

TAKEN = [
    ("one secret", {"key": SECRETS[0]}, [("", SECRETS[0])]),
    ("two, one of them named", {"keys": [{"key": SECRETS[0]}, {"key": SECRETS[1], "kid": "new"}]}, [("", SECRETS[0]), ("new", SECRETS[1])]),
    ("a key set", {"jwks_url": "https://shop.example/jwks.json?v=1"}, []),
    ("a secret of hexadecimal digits", {"key": "0123456789abcdef" * 4}, [("", "0123456789abcdef" * 4)]),
    ("a secret in base64", {"key": base64.b64encode(bytes(range(48))).decode()}, [("", base64.b64encode(bytes(range(48))).decode())]),
]


@pytest.mark.parametrize(("given", "secrets"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_a_site_has_secrets_or_a_key_set(given: dict[str, Any], secrets: list[tuple[str, str]]) -> None:
    site = SiteSettings(**given)
    assert [(key.kid, key.material) for key in secrets_of(site)] == secrets
    assert {key.algorithm for key in secrets_of(site)} <= {"HS256"}
    assert not [secret for _, secret in secrets if secret in repr(site) + repr(secrets_of(site))]


OPENSSH = EC_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
PRIVATE = EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
BARE = "".join(pem(RSA_KEY).splitlines()[1:-1])  # a public key without its first and last line
REFUSED = [
    # (what it is, what is configured, what the message must say)
    ("no key", {}, "no key given; name exactly one of key"),
    ("a secret and a key set", {"key": SECRETS[0], "jwks_url": "https://shop.example/jwks"}, "key and jwks_url given"),
    ("secrets and a key set", {"keys": [{"key": SECRETS[0]}], "jwks_url": "https://shop.example/jwks"}, "keys and jwks_url given"),
    ("one secret and several", {"key": SECRETS[0], "keys": [{"key": SECRETS[1]}]}, "key and keys given"),
    ("a short secret", {"key": "x" * 31}, "at least 32 characters"),
    ("a short one among several", {"keys": [{"key": SECRETS[0]}, {"key": "x" * 31}]}, "at least 32 characters"),
    ("two of one name", {"keys": [{"key": SECRETS[0], "kid": "a"}, {"key": SECRETS[1], "kid": "a"}]}, "same kid"),
    ("eleven secrets", {"keys": [{"key": SECRETS[0]}] * 11}, "at most 10"),
    ("a public RSA key", {"key": pem(RSA_KEY)}, "public or private key, not a secret"),
    ("a public EC key among secrets", {"keys": [{"key": pem(EC_KEY)}]}, "public or private key, not a secret"),
    ("a public RSA key without its frame", {"key": BARE}, "public or private key, not a secret"),
    ("a public EC key without its frame", {"key": "".join(pem(EC_KEY).splitlines()[1:-1])}, "public or private key, not a secret"),
    ("a private key", {"key": PRIVATE}, "public or private key, not a secret"),
    ("an OpenSSH key", {"key": OPENSSH}, "public or private key, not a secret"),
    ("a key as JSON", {"key": json.dumps(public(EC_KEY))}, "public or private key, not a secret"),
    ("an address that is none", {"jwks_url": "shop.example/jwks"}, "must be the https:// address"),
    ("a file", {"jwks_url": "file:///etc/passwd"}, "must be the https:// address"),
    ("a password in the address", {"jwks_url": "https://user:secret@shop.example/jwks"}, "must be the https:// address"),
    ("an audience of nothing", {"key": SECRETS[0], "audience": ""}, "at least 1 character"),
]


@pytest.mark.parametrize(("given", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_key_that_cannot_be_one_stops_the_start(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError):
        SiteSettings(**given)
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"sites": {"shop": given}}))
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(caught.value).startswith("sites.shop")
    assert said in str(caught.value)
    assert not [text for text in (*SECRETS, BARE, "MFkw", "user:secret") if text in str(caught.value)]


LABELS = ["PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "X509 CRL"]


@pytest.mark.parametrize("key", [f"-----BEGIN {label}-----\n{'A' * 64}\n-----END {label}-----\n" for label in LABELS] + [OPENSSH])
def test_key_confusion_what_the_jwt_library_takes_for_no_secret_the_configuration_does_not_either(key: str) -> None:
    with pytest.raises(jwt.InvalidKeyError):
        jwt.encode({}, key, "HS256")
    with pytest.raises(ValidationError):
        SiteSettings(key=SecretStr(key))


HTTP = [
    ("https", "https://shop.example/jwks", (), ""),
    ("no key set", "", (), ""),
    (
        "http",
        "http://shop.example/jwks",
        (),
        "sites.shop.jwks_url: is http, which anyone on the way can change. Use https, or list shop.example in",
    ),
    ("http at an allowed host", "http://keys.internal/jwks", ("keys.internal",), ""),
    ("http at an allowed host and port", "http://keys.internal:8080/jwks", ("keys.internal:8080",), ""),
    ("http at another port of it", "http://keys.internal:8081/jwks", ("keys.internal:8080",), "list keys.internal:8081 in allowed_hosts"),
    ("http at the port everybody means", "http://keys.internal/jwks", ("keys.internal:80",), ""),
]


@pytest.mark.parametrize(("url", "allowed", "said"), [row[1:] for row in HTTP], ids=[row[0] for row in HTTP])
def test_keys_are_fetched_by_https_or_from_a_host_of_ones_own(url: str, allowed: tuple[str, ...], said: str) -> None:
    assert bool(unfetchable(url, allowed)) == bool(said)
    settings = load(ROOT / "config.yaml", {})
    site = SiteSettings.model_validate({"jwks_url": url} if url else {"key": SECRETS[0]})
    changed = settings.model_copy(update={"sites": {"shop": site}, "allowed_hosts": allowed})
    if said:
        with pytest.raises(ConfigError) as caught:
            configure(changed, b"secret")
        assert said in str(caught.value)
    else:
        configure(changed, b"secret")


# --- reading a key set ---

WEAK = rsa.generate_private_key(65_537, 1_024)
P384 = ec.generate_private_key(ec.SECP384R1())
LONG = {"kty": "RSA", "kid": "one", "e": "AQAB", "n": base64.urlsafe_b64encode(b"\xff" * 2_048).decode().rstrip("=")}
OFF_CURVE = base64.urlsafe_b64encode(b"\x01" * 32).decode().rstrip("=")
READ = [
    # (what stands in the set, the algorithm it is read as; "" where it is passed over)
    ("RSA for signatures", public(RSA_KEY), "RS256"),
    ("RSA without a use", public(RSA_KEY, use=None), "RS256"),
    ("RSA that names its algorithm", public(RSA_KEY, alg="RS256"), "RS256"),
    ("RSA without a name", public(RSA_KEY, kid=None), "RS256"),
    ("RSA with operations", public(RSA_KEY, use=None, key_ops=["verify"]), "RS256"),
    ("P-256", public(EC_KEY), "ES256"),
    ("P-256 with a certificate beside it", public(EC_KEY, x5c=["MIIB"], x5u="https://evil.example"), "ES256"),
    ("RSA for encryption", public(RSA_KEY, use="enc"), ""),
    ("RSA for another operation", public(RSA_KEY, use=None, key_ops=["encrypt"]), ""),
    ("RSA for another algorithm", public(RSA_KEY, alg="PS256"), ""),
    ("key confusion: RSA that says it is for HS256", public(RSA_KEY, alg="HS256"), ""),
    ("RSA too short", public(WEAK), ""),
    ("RSA too long to check with", LONG, ""),
    ("RSA without its number", public(RSA_KEY, n=None), ""),
    ("RSA whose number is none", public(RSA_KEY, n=7), ""),
    ("RSA whose number is not base64", public(RSA_KEY, n="%%%"), ""),
    ("P-384", public(P384), ""),
    ("P-256 off the curve", public(EC_KEY, x=OFF_CURVE, y=OFF_CURVE), ""),
    ("key confusion: P-256 under the name of RSA", public(EC_KEY, kty="RSA"), ""),
    ("a secret", {"kty": "oct", "kid": "one", "k": base64.urlsafe_b64encode(b"k" * 32).decode()}, ""),
    ("an Edwards curve", {"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": OFF_CURVE}, ""),
    ("a private key", {**jwt.algorithms.ECAlgorithm.to_jwk(EC_KEY, as_dict=True), "kid": "one"}, ""),
    ("a name that is no text", public(EC_KEY, kid=7), ""),
    ("a kind that is no text", public(EC_KEY, kty=["EC"]), ""),
    ("no object", "key", ""),
]


@pytest.mark.parametrize(("jwk", "algorithm"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_a_key_is_for_what_it_is_or_for_nothing(jwk: Any, algorithm: str) -> None:
    assert [key.algorithm for key in read_key_set(key_set(jwk))] == ([algorithm] if algorithm else [])
    beside = read_key_set(key_set(jwk, public(EC_KEY, kid="beside")))  # one odd key takes nothing from the others
    assert beside[-1].kid == "beside"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b"[]", "no key set"),
        (b"{}", "no key set"),
        (b'{"keys": {}}', "no key set"),
        (json.dumps(public(EC_KEY)).encode(), "no key set"),
        (key_set(*[public(EC_KEY)] * 51), "51 keys"),
    ],
)
def test_what_is_no_key_set_is_named(body: bytes, said: str) -> None:
    with pytest.raises(UnusableKeySet, match=said):
        read_key_set(body)


def test_an_empty_set_is_the_sites_word_that_there_is_no_key() -> None:
    assert read_key_set(b'{"keys": []}') == ()


FITS = [
    ({"alg": "ES256", "kid": "new"}, ["new", ""]),
    ({"alg": "ES256", "kid": "old"}, ["old", ""]),
    ({"alg": "ES256"}, ["old", "new", ""]),
    ({"alg": "ES256", "kid": "other"}, [""]),
    ({"alg": "RS256", "kid": "new"}, []),
    ({"alg": ["ES256"]}, []),
    ({}, []),
]


@pytest.mark.parametrize(("header", "kids"), FITS)
def test_a_token_is_tried_with_keys_of_its_algorithm_and_name(header: dict[str, Any], kids: list[str]) -> None:
    keys = read_key_set(key_set(*(public(EC_KEY, kid=kid) for kid in ("old", "new", None))))
    assert sorted(key.kid for key in fitting(keys, header)) == sorted(kids)


# --- fetching: a real server on loopback, the real guarded client ---


@dataclass
class Shop:
    """The site's own server, which serves its keys; and the hub's view of it."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    now: float = 1_000.0
    sets: Any = None
    site: Any = None

    async def keys(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.arrived.set()
        await self.gate.wait()
        return web.Response(status=self.status, body=self.body, headers=self.headers)

    async def of(self, kid: str = "one", alg: object = "ES256", name: str = "shop") -> list[str]:
        return [key.kid for key in fitting(await self.sets.of(name, self.site, {"alg": alg, "kid": kid}), {"alg": alg, "kid": kid})]


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop(body=key_set(public(EC_KEY)))
    shop.gate.set()
    app = web.Application()
    app.router.add_get("/jwks.json", shop.keys)
    server = TestServer(app)
    await server.start_server()
    http = GuardedHttp([f"127.0.0.1:{server.port}"])
    shop.sets = KeySets(http, lambda: shop.now)
    shop.site = SiteSettings(jwks_url=str(server.make_url("/jwks.json")))
    yield shop
    shop.gate.set()
    await http.close()
    await server.close()


async def test_a_set_is_fetched_once_and_used_for_an_hour(shop: Shop) -> None:
    for _ in range(3):
        assert await shop.of() == ["one"]
    shop.now += FRESH - 1
    assert (await shop.of(), shop.asked) == (["one"], 1)
    shop.body = key_set(public(EC_KEY, kid="two"))
    shop.now += 1
    assert (await shop.of(), shop.asked) == ([], 2)  # taken out: an hour later it counts no more
    assert (await shop.of("two"), shop.asked) == (["two"], 2)


async def test_an_unknown_kid_makes_the_hub_look_again_at_most_once_a_minute(shop: Shop) -> None:
    assert await shop.of() == ["one"]
    shop.now += AGAIN - 1
    for number in range(200):
        assert await shop.of(f"made-up-{number}") == []
    assert shop.asked == 1
    shop.body = key_set(public(EC_KEY), public(EC_KEY, kid="new"))
    shop.now += 1
    assert (await shop.of("new"), shop.asked) == (["new"], 2)
    for number in range(200):
        assert await shop.of(f"made-up-{number}") == []
    assert (await shop.of(), shop.asked) == (["one"], 2)


@pytest.mark.parametrize("alg", ["HS256", "none", "PS256", None, 7, ["ES256"]])
async def test_a_token_no_key_of_the_set_could_fit_makes_nobody_fetch(shop: Shop, alg: object) -> None:
    assert (await shop.of("made-up", alg), shop.asked) == ([], 0)


async def test_a_crowd_waits_for_one_fetch_and_who_leaves_takes_nothing_along(shop: Shop) -> None:
    shop.gate.clear()
    crowd = [asyncio.create_task(shop.of()) for _ in range(50)]
    await shop.arrived.wait()
    crowd[0].cancel()
    await asyncio.wait([crowd[0]])
    shop.gate.set()
    found = await asyncio.gather(*crowd, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [["one"]] * 49
    assert shop.asked == 1


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (500, b"", {}),
        (404, key_set(public(EC_KEY, kid="evil")), {}),
        (302, b"", {"Location": "https://evil.example/jwks"}),
        (200, b"<html>maintenance</html>", {}),
        (200, key_set(public(EC_KEY, kid="evil")).ljust(MAX_SET + 1), {}),  # jwks huge
        (200, b'{"keys": [' + b'"x",' * 20_000 + b'"x"]}', {}),
    ],
    ids=["down", "not there", "moved", "maintenance", "huge", "many keys"],
)
async def test_jwks_down_the_last_good_set_counts_for_a_day(shop: Shop, status: int, body: bytes, headers: dict[str, str]) -> None:
    good = shop.body
    assert await shop.of() == ["one"]
    shop.status, shop.body, shop.headers = status, body, headers
    shop.now += FRESH
    assert (await shop.of(), shop.asked) == (["one"], 2)
    assert (await shop.of(), await shop.of("evil"), shop.asked) == (["one"], [], 2)  # a failing server is not called more often
    shop.now += KEPT - FRESH - 1
    assert (await shop.of(), shop.asked) == (["one"], 3)
    shop.now += 1
    with pytest.raises(KeysAway, match=r"the hub's log says why"):
        await shop.of()
    shop.status, shop.body, shop.headers = 200, good, {}
    shop.now += AGAIN
    assert await shop.of() == ["one"]


async def test_jwks_down_from_the_start_proves_nothing_and_is_tried_once_a_minute(shop: Shop) -> None:
    shop.status = 503
    for _ in range(20):
        with pytest.raises(KeysAway):
            await shop.of()
    assert shop.asked == 1
    shop.status = 200
    shop.now += AGAIN
    assert (await shop.of(), shop.asked) == (["one"], 2)


async def test_a_set_without_keys_ends_the_old_ones(shop: Shop) -> None:
    assert await shop.of() == ["one"]
    shop.body = b'{"keys": []}'
    shop.now += FRESH
    assert await shop.of() == []


async def test_each_site_has_its_own_set_and_its_own_minute(shop: Shop) -> None:
    assert await shop.of() == ["one"]
    shop.body = key_set(public(RSA_KEY, kid="two"))
    assert await shop.of("two", "RS256", "blog") == ["two"]
    assert (await shop.of("two", "RS256"), shop.asked) == ([], 2)


async def test_a_site_with_secrets_fetches_nothing(shop: Shop) -> None:
    shop.site = SiteSettings(key=SecretStr(SECRETS[0]))
    assert (await shop.of("", "HS256"), shop.asked) == ([""], 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254"])
async def test_a_private_address_is_refused(shop: Shop, host: str) -> None:
    http = GuardedHttp()
    sets = KeySets(http, lambda: shop.now)
    for scheme in ("https", "http"):
        site = SiteSettings(jwks_url=f"{scheme}://{host}:{unused_port()}/jwks.json")
        with pytest.raises(KeysAway) as caught:
            await sets.of(scheme, site, {"alg": "ES256"})
        assert host not in str(caught.value)  # what the hub can reach is not for a visitor's console
    site = SiteSettings(jwks_url=shop.site.jwks_url)  # the very server that the other tests are allowed
    with pytest.raises(KeysAway):
        await sets.of("shop", site, {"alg": "ES256"})
    assert shop.asked == 0
    await http.close()
