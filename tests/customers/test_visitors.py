"""Who a visitor is follows from the site's token alone, and a browser that was somebody's is never handed on."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr

from hub.config import SiteSettings
from hub.contract import Claim, Proof
from hub.customers.disclosure import ProvedKey
from hub.customers.site_keys import SiteKey, read_key_set
from hub.customers.visitors import (
    Identity,
    NextSession,
    NotIdentified,
    first_use,
    identified,
    identify,
    is_again,
    next_session,
    proved_keys,
)

NOW = 1_780_000_000.0
KEY = "a-site-key-of-at-least-thirty-two-characters"
SITE = SiteSettings(key=SecretStr(KEY), audience="support-hub", trust_email=True)
GOOD: dict[str, Any] = {
    "sub": "u77",
    "aud": "support-hub",
    "exp": NOW + 600,
    "name": "Dana Ruiz",
    "email": "dana@customer.example",
    "email_verified": True,
}


def sign(changes: dict[str, Any] | None = None, key: str = KEY, algorithm: str = "HS256") -> str:
    claims = {name: value for name, value in (GOOD | (changes or {})).items() if value is not ...}
    return jwt.encode(claims, key, algorithm=algorithm)


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def headed(changes: dict[str, Any]) -> str:
    """A rightly signed token with a header no library would write."""
    return hand_made({}, {name: value for name, value in ({"alg": "HS256", "typ": "JWT"} | changes).items() if value is not ...})


def hand_made(changes: dict[str, Any], header: dict[str, Any] | None = None) -> str:
    """A rightly signed token of claims no library would write."""
    text = f"{segment({'alg': 'HS256', 'typ': 'JWT'} if header is None else header)}.{segment(GOOD | changes)}"
    mac = hmac.digest(KEY.encode(), text.encode(), hashlib.sha256)
    return f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def unsigned() -> str:
    return f"{segment({'alg': 'none', 'typ': 'JWT'})}.{segment(GOOD)}."


def altered() -> str:
    head, _, signature = sign().split(".")
    return f"{head}.{segment(GOOD | {'sub': 'victim'})}.{signature}"


def test_a_valid_token_says_who_the_visitor_is() -> None:
    assert identify(sign(), SITE, NOW) == Identity("u77", "dana@customer.example", "Dana Ruiz")


BAD_TOKENS = [
    ("empty", "", "empty"),
    ("no token at all", "hello", "not a JWT"),
    ("alg none", unsigned(), "HS256"),
    ("alg none with the signature left out", unsigned().rstrip("."), "not a JWT"),
    ("another HMAC than agreed", sign(algorithm="HS512", key=KEY * 2), "HS256"),
    ("another key", sign(key="another-key-of-at-least-thirty-two-characters"), "signature"),
    ("claims altered after signing", altered(), "signature"),
    ("expired beyond the clocks' slack", sign({"exp": NOW - 61}), "expired"),
    ("expired yesterday", sign({"exp": NOW - 86_400}), "expired"),
    ("lives for a day", sign({"exp": NOW + 86_400}), "one hour"),
    ("lives a little too long", sign({"exp": NOW + 3_600 + 61}), "one hour"),
    ("never expires", sign({"exp": ...}), "missing"),
    ("an expiry in words", hand_made({"exp": "tomorrow"}), "number"),
    ("an expiry of true", hand_made({"exp": True}), "number"),
    ("an expiry of infinity", hand_made({"exp": float("inf")}), "number"),
    ("not valid yet", sign({"nbf": NOW + 300}), "not valid yet"),
    ("issued in the future", sign({"iat": NOW + 300}), "not valid yet"),
    ("another audience", sign({"aud": "somebody-else"}), "aud"),
    ("no audience", sign({"aud": ...}), "missing"),
    ("nobody", sign({"sub": ...}), "missing"),
    ("an empty id", sign({"sub": ""}), "no usable id"),
    ("an id of spaces", sign({"sub": "  "}), "no usable id"),
    ("a number as id", hand_made({"sub": 77}), "string"),
    ("a list as id", hand_made({"sub": ["u77"]}), "string"),
    ("the placeholder null", sign({"sub": "null"}), "no usable id"),
    ("the placeholder 0000", sign({"sub": "0000"}), "no usable id"),
    ("the placeholder anonymous", sign({"sub": "Anonymous"}), "no usable id"),
    ("an id with a line break", sign({"sub": "u77\nx"}), "no usable id"),
    ("an endless id", sign({"sub": "u" * 257}), "no usable id"),
    ("an endless token", "e" * 9_000, "longer"),
    ("a token id that is a number", hand_made({"jti": 7}), "jti"),
    ("an empty token id", sign({"jti": ""}), "jti"),
    ("an endless token id", sign({"jti": "x" * 257}), "jti"),
    ("an extension to be understood", headed({"crit": ["exp"], "exp": 1}), "crit"),
    ("an extension of no name", headed({"crit": []}), "crit"),
    ("an extension our library knows", headed({"crit": ["b64"], "b64": True}), "crit"),
    ("a payload not encoded", headed({"crit": ["b64"], "b64": False}), "not a JWT"),
    ("a kid that is no text", headed({"kid": 7}), "kid"),
    ("an algorithm that is a list", headed({"alg": ["HS256"]}), "HS256"),
    ("a header that is a list", f"{segment([])}.{segment(GOOD)}.", "not a JWT"),
    ("a header without end", base64.urlsafe_b64encode(b"[" * 4_000).decode().rstrip("=") + ".e30.", "not a JWT"),
    ("no algorithm", headed({"alg": ...}), "HS256"),
]


@pytest.mark.parametrize(("token", "named"), [row[1:] for row in BAD_TOKENS], ids=[row[0] for row in BAD_TOKENS])
def test_an_unfit_token_proves_nothing_and_the_reason_is_named(token: str, named: str) -> None:
    with pytest.raises(NotIdentified, match=named) as caught:
        identify(token, SITE, NOW)
    assert KEY not in str(caught.value)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(("ahead", "accepted"), [(-59, True), (-60, False), (3_600, True), (3_660, True), (3_661, False)])
def test_the_slack_between_two_clocks_is_a_minute(ahead: int, accepted: bool) -> None:
    token = sign({"exp": NOW + ahead})
    if accepted:
        assert identify(token, SITE, NOW).user_id == "u77"
    else:
        with pytest.raises(NotIdentified):
            identify(token, SITE, NOW)


EMAILS = [
    ("said to be verified, of a site we trust", {}, True, "dana@customer.example"),
    ("of a site whose word on it is not trusted", {}, False, ""),
    ("not said to be verified", {"email_verified": ...}, True, ""),
    ("said to be unverified", {"email_verified": False}, True, ""),
    ("verified in words only", {"email_verified": "true"}, True, ""),
    ("verified as the number one", {"email_verified": 1}, True, ""),
    ("no address", {"email": "dana"}, True, ""),
    ("a list", {"email": ["dana@customer.example"]}, True, ""),
    ("null", {"email": None}, True, ""),
    ("half a surrogate pair", {"email": "\ud800@customer.example"}, True, ""),
]


@pytest.mark.parametrize(("changes", "trusted", "proved"), [row[1:] for row in EMAILS], ids=[row[0] for row in EMAILS])
def test_an_email_is_proved_only_where_the_site_vouches_and_is_trusted_to(changes: dict[str, Any], trusted: bool, proved: str) -> None:
    found = identify(
        hand_made(changes) if ... not in changes.values() else sign(changes), SITE.model_copy(update={"trust_email": trusted}), NOW
    )
    assert found.email == proved
    assert found.user_id == "u77"  # a doubtful address takes nothing from the account


PHONES = [
    ("said to be verified, of a site we trust", {}, True, "+4915550100001"),
    ("written with blanks", {"phone_number": "+49 1555 0100001 "}, True, "+49 1555 0100001"),
    ("of a site whose word on it is not trusted", {}, False, ""),
    ("not said to be verified", {"phone_number_verified": ...}, True, ""),
    ("said to be unverified", {"phone_number_verified": False}, True, ""),
    ("verified in words only", {"phone_number_verified": "true"}, True, ""),
    ("the e-mail is verified, not the number", {"phone_number_verified": ..., "email_verified": True}, True, ""),
    ("under another name", {"phone_number": ..., "phone": "+4915550100001", "phone_verified": True}, True, ""),
    ("of a country left out", {"phone_number": "2025550123"}, True, ""),  # +20 is Egypt
    ("no number", {"phone_number": "call me"}, True, ""),
    ("digits that are a number", {"phone_number": 4915550100001}, True, ""),
    ("a list", {"phone_number": ["+4915550100001"]}, True, ""),
    ("a line break", {"phone_number": "+49155\n50100001"}, True, ""),
]


@pytest.mark.parametrize(("changes", "trusted", "proved"), [row[1:] for row in PHONES], ids=[row[0] for row in PHONES])
def test_a_phone_is_proved_only_where_the_site_vouches_and_is_trusted_to(changes: dict[str, Any], trusted: bool, proved: str) -> None:
    token = sign({"phone_number": "+4915550100001", "phone_number_verified": True} | changes)
    found = identify(token, SITE.model_copy(update={"trust_phone": trusted, "trust_email": False}), NOW)
    assert (found.phone, found.email, found.user_id) == (proved, "", "u77")  # each switch is for its own


def test_the_shipped_switches_are_off() -> None:
    site = SiteSettings(key=SecretStr(KEY))
    assert (site.trust_email, site.trust_phone) == (False, False)


# --- which key ---

SECOND = "the-second-site-key-of-at-least-32-characters"
ROTATING = SiteSettings.model_validate({"keys": [{"key": KEY}, {"key": SECOND, "kid": "second"}], "trust_email": True})
ROTATION = [
    ("the old one, as before", {}, KEY, ""),
    ("the new one under its name", {"kid": "second"}, SECOND, ""),
    ("the new one without a name", {}, SECOND, ""),
    ("the old one, which has no name here, under the site's own", {"kid": "2025"}, KEY, ""),
    ("the old one under the new one's name", {"kid": "second"}, KEY, ""),  # it has no name of its own: no contradiction
    ("a third", {}, "a-third-site-key-of-at-least-32-characters", "sites.<site>.keys"),
    ("the new one under another name", {"kid": "third"}, SECOND, "signature"),
]


@pytest.mark.parametrize(("header", "key", "problem"), [row[1:] for row in ROTATION], ids=[row[0] for row in ROTATION])
def test_rotation_with_two_keys_takes_both_and_nothing_else(header: dict[str, str], key: str, problem: str) -> None:
    token = jwt.encode(GOOD, key, "HS256", header)
    if problem:
        with pytest.raises(NotIdentified, match=problem):
            identify(token, ROTATING, NOW)
    else:
        assert identify(token, ROTATING, NOW).user_id == "u77"


def test_rotation_ends_with_the_old_key_taken_out() -> None:
    ended = SiteSettings.model_validate({"keys": [{"key": SECOND, "kid": "second"}]})
    assert identify(sign(key=SECOND), ended, NOW).user_id == "u77"
    with pytest.raises(NotIdentified, match="signature"):
        identify(sign(), ended, NOW)
    with pytest.raises(NotIdentified, match="kid"):
        identify(jwt.encode(GOOD, SECOND, "HS256", {"kid": "first"}), ended, NOW)


RSA_KEY = rsa.generate_private_key(65_537, 2_048)
EC_KEY, STRANGER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
PUBLISHED = SiteSettings(jwks_url="https://shop.example/jwks.json", trust_email=True)


def jwk(key: Any, kid: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "key_ops": ["verify"]}


SERVED = json.dumps({"keys": [jwk(RSA_KEY, "rsa"), jwk(EC_KEY, "ec")]}).encode()
KEYS: tuple[SiteKey, ...] = read_key_set(SERVED)


def pem(key: Any) -> bytes:
    encoded: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def hmac_signed(secret: bytes, header: dict[str, Any]) -> str:
    text = f"{segment({'alg': 'HS256', 'typ': 'JWT'} | header)}.{segment(GOOD)}"
    return f"{text}.{base64.urlsafe_b64encode(hmac.digest(secret, text.encode(), hashlib.sha256)).decode().rstrip('=')}"


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA_KEY, "RS256", "rsa"), (EC_KEY, "ES256", "ec"), (RSA_KEY, "RS256", None), (EC_KEY, "ES256", None)]
)
def test_a_published_key_proves_who_the_visitor_is(key: Any, algorithm: str, kid: str | None) -> None:
    token = jwt.encode(GOOD, key, algorithm, {"kid": kid} if kid else None)
    assert identify(token, PUBLISHED, NOW, KEYS) == Identity("u77", "dana@customer.example", "Dana Ruiz")
    with pytest.raises(NotIdentified, match="expired"):
        identify(jwt.encode(GOOD | {"exp": NOW - 100}, key, algorithm, {"kid": kid} if kid else None), PUBLISHED, NOW, KEYS)


SERVED_RSA = jwk(RSA_KEY, "rsa")
MODULUS = base64.urlsafe_b64decode(SERVED_RSA["n"] + "==")
CONFUSED = [
    # (what the attacker signs with, who knows the public keys and may write any header)
    ("alg none", unsigned(), "RS256 or ES256"),
    ("alg none under a known kid", f"{segment({'alg': 'none', 'kid': 'ec'})}.{segment(GOOD)}.", "RS256 or ES256"),
    ("alg None in capitals", f"{segment({'alg': 'NONE', 'kid': 'ec'})}.{segment(GOOD)}.", "RS256 or ES256"),
    ("the public RSA key as a secret", hmac_signed(pem(RSA_KEY), {"kid": "rsa"}), "RS256 or ES256"),
    ("the public EC key as a secret", hmac_signed(pem(EC_KEY), {"kid": "ec"}), "RS256 or ES256"),
    ("the served text as a secret", hmac_signed(SERVED, {"kid": "rsa"}), "RS256 or ES256"),
    ("the modulus as a secret", hmac_signed(MODULUS, {"kid": "rsa"}), "RS256 or ES256"),
    ("an empty secret", hmac_signed(b"", {"kid": "rsa"}), "RS256 or ES256"),
    ("HMAC under the name of RS256", hmac_signed(pem(RSA_KEY), {"alg": "RS256", "kid": "rsa"}), "signature"),
    ("HMAC under the name of ES256", hmac_signed(pem(EC_KEY), {"alg": "ES256", "kid": "ec"}), "signature"),
    ("ES256 under the kid of the RSA key", jwt.encode(GOOD, EC_KEY, "ES256", {"kid": "rsa"}), "kid"),
    ("RS512", jwt.encode(GOOD, RSA_KEY, "RS512", {"kid": "rsa"}), "RS256 or ES256"),
    ("PS256", jwt.encode(GOOD, RSA_KEY, "PS256", {"kid": "rsa"}), "RS256 or ES256"),
    ("a stranger's key", jwt.encode(GOOD, STRANGER, "ES256", {"kid": "ec"}), "signature"),
    ("a stranger's key without a kid", jwt.encode(GOOD, STRANGER, "ES256"), "signature"),
    ("an unknown kid", jwt.encode(GOOD, EC_KEY, "ES256", {"kid": "other"}), "serves no key of this `kid`"),
    ("a kid that is a path", jwt.encode(GOOD, EC_KEY, "ES256", {"kid": "../../dev/null"}), "serves no key of this `kid`"),
    ("a stranger's key, brought along", jwt.encode(GOOD, STRANGER, "ES256", {"kid": "ec", "jwk": jwk(STRANGER, "ec")}), "signature"),
    ("an address of keys", jwt.encode(GOOD, STRANGER, "ES256", {"kid": "ec", "jku": "https://evil.example/jwks"}), "signature"),
    ("an address of a certificate", jwt.encode(GOOD, STRANGER, "ES256", {"kid": "ec", "x5u": "https://evil.example/c"}), "signature"),
    ("a certificate", jwt.encode(GOOD, STRANGER, "ES256", {"kid": "ec", "x5c": ["MIIB"]}), "signature"),
    ("the signature of nought", f"{jwt.encode(GOOD, EC_KEY, 'ES256').rpartition('.')[0]}.{'A' * 86}", "signature"),  # CVE-2022-21449
    ("a signature cut short", jwt.encode(GOOD, EC_KEY, "ES256")[:-10], "signature|not a JWT"),
]


@pytest.mark.parametrize(("token", "problem"), [row[1:] for row in CONFUSED], ids=[row[0] for row in CONFUSED])
def test_key_confusion_the_algorithm_is_the_keys_and_never_the_tokens(token: str, problem: str) -> None:
    with pytest.raises(NotIdentified, match=problem):
        identify(token, PUBLISHED, NOW, KEYS)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_key_confusion_a_site_with_a_secret_takes_no_other_signature(algorithm: str) -> None:
    token = jwt.encode(GOOD, RSA_KEY if algorithm == "RS256" else EC_KEY, algorithm)
    with pytest.raises(NotIdentified, match="HS256"):
        identify(token, SITE, NOW)
    with pytest.raises(NotIdentified, match="HS256"):
        identify(token, SITE, NOW, KEYS)  # not even with the right key at hand


def test_a_site_with_a_key_set_that_was_never_fetched_proves_nobody() -> None:
    with pytest.raises(NotIdentified, match="serves no key"):
        identify(jwt.encode(GOOD, EC_KEY, "ES256"), PUBLISHED, NOW)


def test_a_key_is_for_the_site_it_was_read_for_and_its_audience() -> None:
    other = PUBLISHED.model_copy(update={"audience": "another-hub"})
    with pytest.raises(NotIdentified, match="another-hub"):
        identify(jwt.encode(GOOD, EC_KEY, "ES256"), other, NOW, KEYS)


# --- a token used twice ---


def test_a_token_id_is_one_use_at_its_site() -> None:
    assert identify(sign({"jti": "one"}), SITE, NOW).token_id == "one"
    assert identify(sign(), SITE, NOW).token_id == ""
    keys = [first_use(site, number).provider_key for site, number in [("shop", "one"), ("shop", "two"), ("blog", "one"), ("sho", "pone")]]
    assert len(set(keys)) == 4
    assert first_use("shop", "one") == first_use("shop", "one")
    assert not [key for key in keys if "one" in key]  # what a site puts into its tokens is its own affair


def test_half_a_surrogate_pair_is_a_token_id_like_any_other() -> None:
    assert first_use("shop", identify(hand_made({"jti": "\ud800"}), SITE, NOW).token_id).provider_key.isascii()


@pytest.mark.parametrize(("name", "shown"), [("Ana\nLopes\x00", "AnaLopes"), (7, ""), ("x" * 500, "x" * 100), ("\ud800", "")])
def test_a_name_is_one_printable_line(name: object, shown: str) -> None:
    assert identify(hand_made({"name": name}), SITE, NOW).name == shown


@dataclass(frozen=True)
class Old:
    device: str = "d" * 32
    site: str = "shop"
    expires_at: int = int(NOW) + 60
    user_id: str = ""
    email: str = ""
    name: str = ""
    phone: str = ""


ANA, BEN = Identity("ana"), Identity("ben")
ANONYMOUS, SIGNED = Old(), Old(user_id="ana")
RUN_OUT = Old(user_id="ana", expires_at=int(NOW))
FOLLOWS = [
    # (what happens, the old session, identification asked for, what it gave, what follows)
    ("a first visit", None, False, None, NextSession(fresh=True, renew=True)),
    ("a first visit with a valid token", None, True, ANA, NextSession(True, True, ANA)),
    ("a first visit with a bad token", None, True, None, NextSession(True, True)),
    ("an anonymous visitor returns", ANONYMOUS, False, None, NextSession(False, True)),
    ("an anonymous visitor returns after a year", Old(expires_at=1), False, None, NextSession(False, True)),
    ("an anonymous visitor signs in: the browser's own history comes along", ANONYMOUS, True, ANA, NextSession(False, True, ANA)),
    ("an anonymous visitor with a bad token stays anonymous", ANONYMOUS, True, None, NextSession(False, True)),
    ("the next page of a signed visitor", SIGNED, False, None, NextSession(False, False)),
    ("the next page renews the site's token", SIGNED, True, ANA, NextSession(False, True, ANA)),
    ("the same person after the signed time", RUN_OUT, True, ANA, NextSession(False, True, ANA)),
    ("another account on a public computer", SIGNED, True, BEN, NextSession(True, True, BEN)),
    ("another account after the signed time", RUN_OUT, True, BEN, NextSession(True, True, BEN)),
    ("nobody says who it is after the signed time", RUN_OUT, False, None, NextSession(True, True)),
    ("a bad token on a signed browser fails closed", SIGNED, True, None, NextSession(True, True)),
    ("the same id at another site is another person", Old(user_id="ana", site="blog"), True, ANA, NextSession(True, True, ANA)),
    ("a session signed by another site", Old(user_id="ana", site="blog"), False, None, NextSession(True, True)),
]


@pytest.mark.parametrize(("old", "asked", "identity", "follows"), [row[1:] for row in FOLLOWS], ids=[row[0] for row in FOLLOWS])
def test_a_browser_that_was_somebodys_is_never_handed_on(
    old: Old | None, asked: bool, identity: Identity | None, follows: NextSession
) -> None:
    assert next_session(old, asked, identity, "shop", NOW) == follows


def test_the_hub_is_told_once_for_each_site_token() -> None:
    claims = (Claim("user_id", "ana", Proof.SIGNED, "shop"), Claim("device", "d" * 32, Proof.CHANNEL))
    first, again, other = (identified(SIGNED, claims, token) for token in ("one", "one", "two"))
    assert first == again
    assert first.provider_key != other.provider_key
    assert first.claims == claims
    assert "one" not in first.provider_key  # a site's token is a credential: only its digest is kept


AGAIN = [
    ("the same person, still signed in", SIGNED, True),
    ("nobody yet", None, False),
    ("an anonymous browser", ANONYMOUS, False),
    ("a browser after a logout", Old(device="e" * 32), False),
    ("the same person after the signed time", RUN_OUT, False),
    ("another person", Old(user_id="ben"), False),
    ("the same id at another site", Old(user_id="ana", site="blog"), False),
]


@pytest.mark.parametrize(("old", "again"), [row[1:] for row in AGAIN], ids=[row[0] for row in AGAIN])
def test_a_used_token_says_nothing_new_except_to_who_is_that_person_already(old: Old | None, again: bool) -> None:
    assert is_again(ANA, old, "shop", NOW) is again


CLAIMED = [
    (Claim("device", "d1", Proof.CHANNEL), ProvedKey("device", "", "d1")),
    (Claim("user_id", "ana", Proof.SIGNED, "shop"), ProvedKey("user_id", "shop", "ana")),
    (Claim("user_id", "ana", Proof.CLAIMED, "shop"), None),
    (Claim("email", "a@b.example", Proof.SIGNED), None),  # mail is not shown in a chat window, even to its owner
    (Claim("email", "a@b.example", Proof.CLAIMED), None),
    (Claim("device", "d1", Proof.SEEN), None),
]


@pytest.mark.parametrize(("claim", "key"), CLAIMED)
def test_only_what_a_session_proved_opens_a_view(claim: Claim, key: ProvedKey | None) -> None:
    assert proved_keys([claim]) == ((key,) if key else ())
