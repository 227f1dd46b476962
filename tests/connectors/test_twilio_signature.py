"""Law: a Twilio webhook is believed only when signed with our token over our configured URL, as Twilio's own library would judge it.

Vectors: ../shared/fixtures/signatures (twilio-python's own test values; see SOURCE.txt there).
"""

import base64
import json
import string
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from connectors.shared.signatures import form_pairs, twilio_signature, twilio_signed
from connectors.shared.twilio import RETRIES
from connectors.twilio_sms import TwilioSms
from hub.contract import Channel, Place, Request, Verdict
from tests.shared_data import shared

FORM = "application/x-www-form-urlencoded"
URL = "https://hub.example/in/sms"
BODY = b"MessageSid=SM1&Body=caf%C3%A9+%2B1&From=%2B15555550101&Empty=&MediaUrl0=https%3A%2F%2Fx%2Fy%3Fa%3D1%26b"


def channel(token: str = "12345") -> TwilioSms:
    settings = TwilioSms.Settings(type="twilio_sms", address="+15555550100", account_sid="AC1", auth_token=token)  # type: ignore[call-arg]
    return TwilioSms(settings, Place("sms", URL, b"k"))  # type: ignore[arg-type]


def post(url: str, body: bytes, signature: str | None, content_type: str = FORM) -> Request:
    headers = {"content-type": content_type} | ({} if signature is None else {"x-twilio-signature": signature})
    return Request("POST", url, headers, body)


def judge(request: Request, token: str = "12345") -> Verdict:
    return channel(token).verify(request, 0.0)


@cache
def vectors() -> list[dict[str, Any]]:
    twilio = json.loads(shared("signatures", "vectors.json").read_text())["twilio"]
    assert twilio["token"] == "12345"
    assert len(twilio["cases"]) == 7
    assert all(case["valid"] for case in twilio["cases"])
    return list(twilio["cases"])


def vector_request(case: dict[str, Any]) -> Request:
    if "body" in case:
        return post(case["url"], case["body"].encode(), case["signature"], "application/json")
    params = case["params"]
    pairs = [(name, value) for name, value in (params if isinstance(params, list) else params.items())]
    return post(case["url"], urlencode(pairs).encode(), case["signature"])


@pytest.mark.parametrize("number", range(7))
def test_published_vectors_verify(number: int) -> None:
    assert judge(vector_request(vectors()[number])) is Verdict.GOOD


def one_byte_changes(text: str) -> list[str]:
    """Each text that differs in one character, which stays what it was: a letter or a digit."""
    swapped = {c: "Z" if c != "Z" else "Y" for c in string.ascii_letters} | {c: "7" if c != "7" else "3" for c in string.digits}
    return [text[:i] + swapped[c] + text[i + 1 :] for i, c in enumerate(text) if c in swapped]


def same_but_port(url: str, other: str) -> bool:
    """Twilio signs with and without a port, so a request seen at another port still is the same request."""
    one, two = urlsplit(url), urlsplit(other)
    return one._replace(netloc=one.hostname or "") == two._replace(netloc=two.hostname or "")


@pytest.mark.parametrize("number", range(7))
def test_any_one_byte_changed_fails(number: int) -> None:
    good = vector_request(vectors()[number])
    signature = good.headers["x-twilio-signature"]
    tampered = [
        post(url, good.body, signature, good.content_type) for url in one_byte_changes(good.url) if not same_but_port(url, good.url)
    ]
    tampered += [post(good.url, body.encode(), signature, good.content_type) for body in one_byte_changes(good.body.decode())]
    tampered += [post(good.url, good.body, other, good.content_type) for other in one_byte_changes(signature)]
    assert len(tampered) > 80
    assert {judge(request) for request in tampered} == {Verdict.BAD}
    assert judge(good, token="12346") is Verdict.BAD


PORTS = {
    # what Twilio was given -> what our configuration says, and whether they are the same address
    "same": ("https://hub.example/in/sms", "https://hub.example/in/sms", True),
    "Twilio added the default port": ("https://hub.example:443/in/sms", "https://hub.example/in/sms", True),
    "Twilio removed ours": ("https://hub.example/in/sms", "https://hub.example:8443/in/sms", True),
    "default port of http": ("http://hub.example:80/in/sms", "http://hub.example/in/sms", True),
    "port and query": ("https://hub.example:443/in/sms?delivery=7", "https://hub.example/in/sms?delivery=7", True),
    "IPv6 host": ("http://[::1]:80/in/sms", "http://[::1]/in/sms", True),
    "port again in the path": ("https://hub.example/x/:8443/", "https://hub.example:8443/x/:8443/", True),
    "proxy ended TLS": ("https://hub.example/in/sms", "http://hub.example/in/sms", False),
    "proxy cut the prefix": ("https://hub.example/support/in/sms", "https://hub.example/in/sms", False),
    "another host": ("https://evil.example/in/sms", "https://hub.example/in/sms", False),
    "another port": ("https://hub.example:8444/in/sms", "https://hub.example:8443/in/sms", False),
    "default port of the other scheme": ("https://hub.example:80/in/sms", "https://hub.example/in/sms", False),
    "query dropped": ("https://hub.example/in/sms?delivery=7", "https://hub.example/in/sms", False),
}


@pytest.mark.parametrize(("signed", "configured", "same"), PORTS.values(), ids=PORTS)
def test_url_matrix(signed: str, configured: str, same: bool) -> None:
    request = post(configured, BODY, twilio_signature(b"12345", signed, form_pairs(BODY)))
    assert (judge(request) is Verdict.GOOD) is same


def test_a_proxys_headers_change_nothing() -> None:
    forged = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "http", "host": "evil.example", "forwarded": "host=evil.example"}
    for signed, verdict in ((URL, Verdict.GOOD), ("http://evil.example/in/sms", Verdict.BAD)):
        request = post(URL, BODY, twilio_signature(b"12345", signed, form_pairs(BODY)))
        assert judge(Request("POST", request.url, {**request.headers, **forged}, request.body)) is verdict


def test_an_unset_token_is_no_key_even_for_a_signature_made_with_it() -> None:
    assert judge(post(URL, BODY, twilio_signature(b"", URL, form_pairs(BODY))), token="") is Verdict.NO_KEY


@pytest.mark.parametrize("signature", [None, ""], ids=["absent", "empty"])
def test_no_signature_is_unsigned(signature: str | None) -> None:
    assert judge(post(URL, BODY, signature)) is Verdict.UNSIGNED


ODD_SIGNATURES = {
    "not base64": "!",
    "not ASCII": "é" * 28,
    "undecodable byte": "\udcff",
    "prefix of the right one": "right",
    "with padding": "pad",
}


@pytest.mark.parametrize("odd", ODD_SIGNATURES.values(), ids=ODD_SIGNATURES)
def test_odd_signatures_are_bad_and_crash_nothing(odd: str) -> None:
    right = twilio_signature(b"12345", URL, form_pairs(BODY))
    odd = {"right": right[:-1], "pad": right + "="}.get(odd, odd)
    assert judge(post(URL, BODY, odd)) is Verdict.BAD


JSON_BODIES = {
    "hash of another body": (b'{"a":2}', True, "application/json"),
    "no hash: nothing covers the body": (b'{"a":1}', False, "application/json"),
    "a form type does not make JSON signed": (b"a=1", True, FORM),
}


@pytest.mark.parametrize(("body", "hashed", "content_type"), JSON_BODIES.values(), ids=JSON_BODIES)
def test_a_body_that_is_not_covered_is_bad(body: bytes, hashed: bool, content_type: str) -> None:
    url = URL + ("?bodySHA256=015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862" if hashed else "?x=1")
    good = post(url, b'{"a":1}', twilio_signature(b"12345", url), "application/json")
    assert (judge(good) is Verdict.GOOD) is hashed
    assert judge(post(url, body, good.headers["x-twilio-signature"], content_type)) is Verdict.BAD


def test_too_many_fields_are_bad_without_being_decoded() -> None:
    body = b"&".join([b"a=1"] * 1_001)
    assert judge(post(URL, body, twilio_signature(b"12345", URL, parse_qsl(body.decode())))) is Verdict.BAD


class Repeated(dict[str, list[str]]):
    """What twilio-python takes repeated fields from (Flask's and Django's multi-dicts)."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


def validator_fields(pairs: list[tuple[str, str]]) -> Repeated:
    fields = Repeated()
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
fields = st.lists(st.tuples(st.one_of(st.sampled_from(["Body", "From", "A"]), words), words), max_size=8)
urls = st.builds(
    "{}://hub.example{}{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["", ":80", ":443", ":8443"]),
    st.sampled_from(["/", "/in/sms", "/caf%C3%A9/x"]),
    st.sampled_from(["", "?a=1", "?delivery=7&b=%20"]),
)


@given(url=urls, seen=urls, pairs=fields, token=st.text(st.characters(codec="ascii"), min_size=1), kept=st.booleans())
def test_agrees_with_twilios_own_validator(url: str, seen: str, pairs: list[tuple[str, str]], token: str, kept: bool) -> None:
    pairs = [(name, value) for name, value in pairs if name or value]
    validator = RequestValidator(token)
    signature = twilio_signature(token.encode(), url, pairs)
    assert signature == validator.compute_signature(url, validator_fields(pairs))
    seen = url if kept else seen
    assert twilio_signed(token.encode(), seen, pairs, signature) == validator.validate(seen, validator_fields(pairs), signature)


@given(pairs=fields)
def test_forms_decode_as_the_standard_library_does(pairs: list[tuple[str, str]]) -> None:
    body = urlencode(pairs)
    assert list(form_pairs(body.encode())) == parse_qsl(body, keep_blank_values=True)


@given(body=st.text("&=+%a4C9é;\x00 ", max_size=40))
def test_malformed_forms_decode_as_the_standard_library_does(body: str) -> None:
    assert list(form_pairs(body.encode())) == parse_qsl(body, keep_blank_values=True)


@given(body=st.binary(max_size=60), signature=st.binary(max_size=30))
def test_any_bytes_get_a_verdict(body: bytes, signature: bytes) -> None:
    assert judge(post(URL, body, base64.b64encode(signature).decode() or None)) in (Verdict.BAD, Verdict.UNSIGNED)


@pytest.mark.parametrize(
    ("signed", "verdict"),
    [
        (URL, Verdict.GOOD),  # a request's address ends before the #
        (URL + RETRIES, Verdict.GOOD),  # the address as it was pasted
        (URL.replace("hub.example/", "hub.example:443/") + RETRIES, Verdict.GOOD),
        (URL + "#rc=5", Verdict.BAD),
        (URL + "?delivery=7" + RETRIES, Verdict.BAD),
        (URL.replace("sms", "whatsapp") + RETRIES, Verdict.BAD),
    ],
)
def test_the_retries_asked_for_behind_the_address_do_not_spoil_its_signature(signed: str, verdict: Verdict) -> None:
    """Twilio's own validator signs whatever address it is given; which of the two Twilio gives it is not written anywhere."""
    assert RETRIES.startswith("#")
    signature = RequestValidator("12345").compute_signature(signed, dict(form_pairs(BODY)))
    assert judge(post(URL, BODY, signature)) is verdict


def test_what_is_pasted_is_the_webhook_with_its_retries() -> None:
    assert {value for _, value in channel().to_paste()} == {URL + RETRIES}
    asked = dict(parse_qsl(RETRIES[1:]))
    # https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides: ranges of each
    assert 0 <= int(asked["rc"]) <= 5
    assert 100 <= int(asked["ct"]) <= 10_000
    assert 100 <= int(asked["rt"]) <= 15_000
    assert asked["rp"] == "all"
    assert int(asked["rt"]) > 2_000, "we may take 2 s until we ask to come back"


def test_it_is_a_channel() -> None:
    assert isinstance(channel(), Channel)
    assert "12345" not in repr(channel().settings)
