"""One spelling for one address: what is equal is the same mailbox, number or account, and nothing else is."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hub.customers import canonical as module
from hub.customers.canonical import LONGEST, canonical

PHONES = [
    ("+12025550123", "+12025550123"),
    ("12025550123", "+12025550123"),  # WhatsApp's WaId: the country code without its sign
    (" +1 (202) 555-0123 ", "+12025550123"),
    ("+1.202.555.0123", "+12025550123"),
    ("+447700900123", "+447700900123"),  # a number for drama: possible, not assigned
    ("+44 (0)7700 900123", "+447700900123"),  # the trunk zero people write
    ("00447700900123", None),  # a dialling prefix is no country code; with a default region it becomes +1 0044...
    ("+390612345678", "+390612345678"),  # an Italian zero is part of the number
    ("+12025550123;ext=7", "+12025550123;ext=7"),
    ("+1 202 555 0123 ext. 7", "+12025550123;ext=7"),
    ("+1 202 555 0123 x7", "+12025550123;ext=7"),
    ("+558000464636", "+558000464636"),  # a Brazilian 0800 number: no 9 is added
    ("+554188887777", "+554188887777"),  # an old Brazilian mobile: provider rules come later, no guess now
    ("+5491123456789", "+5491123456789"),  # an Argentine 9 is never taken away
    ("+266696687", None),  # "ANONYMOUS" as Twilio spells it in digits
    ("+7378742833", None),  # "RESTRICTED"
    ("+10000000000", None),  # no number at all
    ("+1", None),
    ("+", None),
    ("", None),
    ("AMAZON", None),
    ("call me", None),
    ("67890", None),  # a short code is somebody's system
    ("+1202555012345678", None),
    ("+12025550123\x00", "+12025550123"),
]


@pytest.mark.parametrize(("value", "expected"), PHONES)
def test_phones(value: str, expected: str | None) -> None:
    assert canonical("phone", value) == expected


def test_two_desks_behind_one_number_are_two_people() -> None:
    assert len({canonical("phone", f"+12025550123;ext={desk}") for desk in (1, 2)} | {canonical("phone", "+12025550123")}) == 3


EMAILS = [
    ("ada@example.com", "ada@example.com"),
    (" Ada@Example.COM ", "ada@example.com"),
    ("ada@example.com.", "ada@example.com"),  # the root's dot
    ("a.d.a+shop@gmail.com", "a.d.a+shop@gmail.com"),  # provider rules come later: nothing is guessed
    ("e\u0301ve@example.com", "\u00e9ve@example.com"),  # composed and decomposed are one
    ("ada@bücher.example", "ada@xn--bcher-kva.example"),
    ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
    ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
    ("ada@bücher。example", "ada@xn--bcher-kva.example"),  # the ideographic full stop
    ("ada@faß.de", "ada@xn--fa-hia.de"),  # not fass.de: that is another domain
    ("ada@fass.de", "ada@fass.de"),
    ("ada@my_host.example.com", "ada@my_host.example.com"),  # seen on internal mail
    ("root@localhost", "root@localhost"),
    ("ada@[192.0.2.1]", "ada@[192.0.2.1]"),
    ("a@b@example.com", "a@b@example.com"),  # the last @ divides; whatever it is, it equals only itself
    ("ada@\u0430pple.com", "ada@xn--pple-43d.com"),  # a Cyrillic a: another domain, and shown as such
    ("ada", None),
    ("@example.com", None),
    ("ada@", None),
    ("ada@example..com", None),
    ("ada@-example.com", None),
    ("ada @example.com", None),
    ("ada@exam ple.com", None),
    ("<ada@example.com>", None),
    ("ada\r\nBcc: x@example.com", None),
    ("ada\x00@example.com", None),
    ("ada\ud83d@example.com", None),  # half a surrogate pair
    ("ada@example\ud83d.com", None),
    ("a" * LONGEST + "@example.com", None),
    ("", None),
]


@pytest.mark.parametrize(("value", "expected"), EMAILS, ids=range(len(EMAILS)))
def test_emails(value: str, expected: str | None) -> None:
    assert canonical("email", value) == expected


PLACEHOLDERS = ["", " ", "0", "0000", "-1", "00000000-0000-0000-0000-000000000000", "null", "NULL", " null ", "None", "undefined"]
PLACEHOLDERS += ["anonymous", "Unknown", "invalid", "n/a", "a\x00b", "a\nb", "half \ud800", "x" * (LONGEST + 1)]


@pytest.mark.parametrize("kind", ["user_id", "wa_user_id", "device", "sender_word"])
@pytest.mark.parametrize("value", PLACEHOLDERS, ids=range(len(PLACEHOLDERS)))
def test_a_placeholder_is_nobodys_id(kind: str, value: str) -> None:
    assert canonical(kind, value) is None


@pytest.mark.parametrize(
    "value", ["42", "007", "US.13491208655302741918", "nullable", "anonymous-42", "Ada", "ada", "é", "a b", "10", "AMAZON"]
)
def test_an_opaque_id_is_taken_letter_for_letter(value: str) -> None:
    assert canonical("user_id", value) == value


@pytest.mark.parametrize("kind", ["name", "wa_username", "ip", "", "EMAIL"])
def test_what_is_no_key_has_no_canonical_value(kind: str) -> None:
    assert canonical(kind, "ada@example.com") is None


ANYTHING = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=40),
    st.from_regex(r"[^@\s]{1,12}@[^@\s]{1,12}\.[a-z]{2,4}", fullmatch=True),
    st.from_regex(r"\+?[0-9 ()./-]{3,20}(;ext=[0-9]{1,4})?", fullmatch=True),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["phone", "email", "user_id", "device"]), ANYTHING)
@example("email", "\u0130@example.com")  # a capital whose lower case is two code points
@example("email", "a@\u2126hm.example")
def test_a_canonical_value_is_its_own_canonical_value_and_can_be_stored(kind: str, value: str) -> None:
    once = canonical(kind, value)
    if once is not None:
        assert canonical(kind, once) == once
        assert "\x00" not in once
        once.encode()


COUNTRY_CODES = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)


@given(st.sampled_from(COUNTRY_CODES), st.text("0123456789", min_size=3, max_size=13))
@settings(max_examples=2_000)
@example(1, "2025550123")
@example(54, "91123456789")
@example(39, "0612345678")
@example(44, "07700900123")
def test_a_number_taken_without_a_parse_is_what_a_parse_would_have_given(country: int, national: str) -> None:
    number = f"+{country}{national}"
    if not module._unambiguous(number):
        return
    parsed = phonenumbers.parse(number, None)
    assert phonenumbers.is_possible_number(parsed)
    assert phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164) == number


@pytest.mark.parametrize("number", ["+12025550123", "+447700900123", "+4915123456789", "+33612345678", "+558000464636"])
def test_everyday_numbers_need_no_parse(number: str) -> None:
    assert module._unambiguous(number)
