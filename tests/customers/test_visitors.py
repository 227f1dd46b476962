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
from pydantic import SecretStr

from hub.config import SiteSettings
from hub.contract import Claim, Proof
from hub.customers.disclosure import ProvedKey
from hub.customers.visitors import Identity, NextSession, NotIdentified, identified, identify, next_session, proved_keys

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


def hand_made(changes: dict[str, Any]) -> str:
    """A rightly signed token of claims no library would write."""
    text = f"{segment({'alg': 'HS256', 'typ': 'JWT'})}.{segment(GOOD | changes)}"
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
