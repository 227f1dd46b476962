"""One spelling for one address: what is equal is the same mailbox, number or account, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hub.customers import canonical as module
from hub.customers.canonical import LONGEST, PROVIDERS, canonical, suggestion_keys

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
    ("12025550123;ext=7", "+12025550123;ext=7"),  # our own form, its plus sign lost
    ("(202) 555-0123", None),  # no country: with a plus before it, somebody in Egypt
    ("202-555-0123", None),
    ("1 202 555 0123", None),  # as people write, not as channels do: it needs a region
    ("+1 202 555 0123 ext. 0", "+12025550123;ext=0"),
    ("tel:+44-7700-900123", "+447700900123"),
    ("0000000000", None),
    ("+0000000000", None),
    ("-1", None),
]


@pytest.mark.parametrize(("value", "expected"), PHONES)
def test_phones(value: str, expected: str | None) -> None:
    assert canonical("phone", value) == expected


# What a person typed or a record holds, and the country it is dialled in.
TYPED = [
    ("(212) 555-0142", "US", "+12125550142"),
    ("212.555.0142", "US", "+12125550142"),
    ("1-212-555-0142", "US", "+12125550142"),
    ("12125550142", "US", "+12125550142"),
    ("(212) 555-0142 x7", "US", "+12125550142;ext=7"),
    ("07700 900123", "GB", "+447700900123"),
    ("7700 900123", "GB", "+447700900123"),  # its trunk zero left out
    ("447700900123", "GB", "+447700900123"),
    ("06 1234 5678", "IT", "+390612345678"),  # an Italian zero is part of the number
    ("07700 900123", "gb", "+447700900123"),
    ("\u0660\u0667\u0667\u0660\u0660\u0669\u0660\u0660\u0661\u0662\u0663", "GB", "+447700900123"),  # Arabic digits
    # A plus sign outranks the region.
    ("+44 7700 900123", "US", "+447700900123"),
    ("\uff0b447700900123", "US", "+447700900123"),  # a full-width plus sign
    ("tel:+44-7700-900123", "US", "+447700900123"),
    ("+521 55 1234 5678", "US", "+525512345678"),
    # The prefix for calls abroad.
    ("011 44 7911 123456", "US", "+447911123456"),
    ("0044 7911 123456", "GB", "+447911123456"),
    ("0044 7911 123456", "US", "+447911123456"),  # libphonenumber: +1 0044 7911 123456
    ("00 44 7911 123456", "US", "+447911123456"),
    ("0044123456", "US", None),  # ten digits: "possible" at home, and nobody's number anywhere
    ("0011 44 7911 123456", "AU", "+447911123456"),
    ("0061 2 9374 4000", "AU", "+61293744000"),  # home, as if from abroad
    ("0044 7911 123456", "JP", "+447911123456"),
    ("0077 7000 1234", "JP", None),  # a Japanese number may start 00, and +7 7770 001234 is no number
    ("0041 44 668 18 00", "BR", None),  # Zurich, or 41 for a carrier and then London: two readings
    ("0081 650 253 0000", "SG", None),  # Japan, or StarHub's 008 and then California
    ("00(212) 555-0142", "MA", None),
    ("000 44", "GB", None),
    # Impossible, or complete only in its town: two people have 555-0123.
    ("555-0123", "US", None),
    ("88887777", "BR", None),
    ("212555014233", "US", None),  # a digit too many is a slip, not +212 (Morocco)
    ("447700900123", "US", None),
    ("12345", "US", None),
    ("000-000-0000", "US", None),
    ("0", "GB", None),
    ("", "US", None),
    ("call me", "US", None),
    ("(212) 555-0142", "ZZ", None),  # no such country
    ("(212) 555-0142", "001", None),
    # The rules about countries, in what people type.
    ("41 8888-7777", "BR", "+5541988887777"),
    ("(041) 8888-7777", "BR", "+5541988887777"),
    ("41 3234-5678", "BR", "+554132345678"),
    ("0800 046 4636", "BR", "+558000464636"),
    ("55 1234 5678", "MX", "+525512345678"),
    ("5215512345678", "MX", "+525512345678"),
    ("1 555 123 4567", "MX", None),  # +52 1 ... or somebody in the United States
    ("011 15 1234 5678", "AR", "+5491112345678"),  # the 15 says mobile, for certain
    ("11 1234 5678", "AR", "+541112345678"),
]


@pytest.mark.parametrize(("value", "region", "expected"), TYPED)
def test_a_number_without_a_country_code_is_read_in_its_region(value: str, region: str, expected: str | None) -> None:
    assert canonical("phone", value, region) == expected


@pytest.mark.parametrize(("value", "region", "expected"), [row for row in TYPED if row[2]])
def test_what_a_region_made_complete_needs_no_region_again(value: str, region: str, expected: str) -> None:
    assert canonical("phone", expected) == canonical("phone", expected, region) == canonical("phone", expected, "US") == expected


def test_a_region_says_nothing_about_other_kinds() -> None:
    assert canonical("email", "ada@example.com", "US") == "ada@example.com"
    assert canonical("user_id", "2125550142", "US") == "2125550142"


# Two numbers as channels deliver them, and whether they are one. WhatsApp delivers the first of each pair.
PAIRS = [
    ("5541988887777", "+5541988887777", True),
    ("12125550142", "+12125550142", True),
    ("447700900123", "+447700900123", True),
    # Brazil: the ninth digit of older accounts.
    ("554188887777", "+5541988887777", True),
    ("558599998888", "+5585999998888", True),
    ("551161234567", "+5511961234567", True),
    ("555171234567", "+5551971234567", True),
    ("554132345678", "+5541932345678", False),  # a landline and a mobile number
    ("554152345678", "+5541952345678", False),
    ("558000464636", "+5580900464636", False),  # 0800
    ("558088887777", "+5580988887777", False),  # 80 is no area code
    ("552088887777", "+5520988887777", False),  # nor is 20
    ("5541888877777", "+5541988887777", False),
    # Mexico: the 1 of mobile numbers until 2019.
    ("5215512345678", "+525512345678", True),
    ("5218112345678", "+528112345678", True),
    ("5215512345678", "+525512345679", False),
    ("5210512345678", "+520512345678", False),  # no Mexican number starts 0
    ("525112345678", "+52512345678", False),  # ten digits that start 51: nothing is dropped
    ("15512345678", "+525512345678", False),
    # Argentina: with and without the 9 are two numbers, and two subscribers may have them.
    ("5491123456789", "+541123456789", False),
    ("5493515551234", "+543515551234", False),
    # Ivory Coast and Benin: the old form stays what it is.
    ("22507123456", "+2250707123456", False),
    ("22997123456", "+2290197123456", False),
    ("2250707123456", "+2250507123456", False),  # one old number can have become only one of these
]


@pytest.mark.parametrize(("delivered", "other", "same"), PAIRS)
def test_two_forms_of_a_number_are_one_only_where_the_rule_is_certain(delivered: str, other: str, same: bool) -> None:
    assert (canonical("phone", delivered) == canonical("phone", other)) is same
    if same:
        assert canonical("phone", delivered) is not None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("554188887777", "+5541988887777"),
        ("+55 (41) 8888-7777", "+5541988887777"),
        ("+55 41 8888-7777 ext. 3", "+5541988887777;ext=3"),
        ("+52 1 55 1234 5678", "+525512345678"),
        ("+52 1 55 1234 5678 x3", "+525512345678;ext=3"),
        # Their negative twins.
        ("554132345678", "+554132345678"),
        ("5541932345678", "+5541932345678"),
        ("558000464636", "+558000464636"),
        ("5540041234", "+5540041234"),  # a company's number for the whole country
        ("5491123456789", "+5491123456789"),
        ("541123456789", "+541123456789"),
        ("2250707123456", "+2250707123456"),
        ("22507123456", "+22507123456"),
        ("22997123456", "+22997123456"),
        ("22607123", None),  # Burkina Faso lengthened nothing: eight digits there are eight
        ("521551234567", "+521551234567"),  # ten digits that start 1: unassigned, and nothing to drop
        ("52155123456789", None),
    ],
)
def test_numbers_as_whatsapp_delivers_them(value: str, expected: str | None) -> None:
    assert canonical("phone", value) == expected


AREAS = [11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 24, 27, 28, 31, 32, 33, 34, 35, 37, 38, 41, 42, 43, 44, 45, 46, 47, 48, 49, 51, 53]
AREAS += [54, 55, 61, 62, 63, 64, 65, 66, 67, 68, 69, 71, 73, 74, 75, 77, 79, 81, 82, 83, 84, 85, 86, 87, 88, 89, 91, 92, 93, 94, 95, 96]
AREAS += [97, 98, 99]


def test_a_nine_is_added_in_the_67_areas_of_brazil_before_6_to_9_and_nowhere_else() -> None:
    added = {
        (area, first)
        for area in range(10, 100)
        for first in range(10)
        if canonical("phone", f"+55{area}{first}8887777") == f"+55{area}9{first}8887777"
    }
    assert len(AREAS) == 67
    assert added == {(area, first) for area in AREAS for first in (6, 7, 8, 9)}


CASES = Path(__file__).resolve().parents[2] / ".." / "shared" / "identity" / "cases.json"


@pytest.mark.skipif(not CASES.exists(), reason="conformance data absent: ../shared/identity/cases.json")
@pytest.mark.parametrize(("case", "messages"), [("case-01", 4), ("case-02", 4)])
def test_the_numbers_of_the_acceptance_cases_are_one_exactly_where_the_case_says(case: str, messages: int) -> None:
    found = next(c for c in json.loads(CASES.read_text())["cases"] if c["id"] == case)
    region = found["workspaces"][0]["default_region"]
    numbers = {
        event["id"]: canonical("phone", claim["value"], "" if claim["proof"] == "channel" else region)
        for event in found["events"]
        for claim in event["from"]
        if claim["type"] == "phone"
    }
    assert len(numbers) == messages
    assert None not in numbers.values()
    if case == "case-01":  # one number, written four ways; who may claim it is another question
        assert set(numbers.values()) == {"+12125550142"}
        return
    groups = found["expected"]["groups"]
    assert [len({numbers[event] for event in group}) for group in groups] == [1] * len(groups)
    assert len(set(numbers.values())) == len(groups)


def test_two_desks_behind_one_number_are_two_people() -> None:
    assert len({canonical("phone", f"+12025550123;ext={desk}") for desk in (1, 2)} | {canonical("phone", "+12025550123")}) == 3


# Pairs of two different numbers, after libphonenumber's own tests of numbers that do not match: plain E.164 makes one of the last three.
NO_MATCH = [
    ("+64 3 331 6005", "+64 3 331 6006"),
    ("+800 1234 5678", "+1 800 1234 5678"),
    ("+64 3 331-6005", "+16433316005"),
    ("+64 3 331-6005", "+6133316005"),
    ("+64 3 331-6005 extn 1234", "+6433316005#1235"),
    ("+64 3 331-6005 extn 1234", "tel:+64-3-331-6005;ext=1235"),
    ("+64 3 331-6005 ext.1235", "+64 3 331 6005#1234"),
]


@pytest.mark.parametrize(("left", "right"), NO_MATCH)
def test_different_numbers_stay_different(left: str, right: str) -> None:
    assert canonical("phone", left) != canonical("phone", right)
    assert canonical("phone", left) is not None
    assert canonical("phone", left, "NZ") == canonical("phone", left)


@pytest.mark.parametrize(
    "written", ["+64 3 331-6005 extn 1234", "+6433316005#1234", "+6433316005;1234", "tel:+64-3-331-6005;ext=1234", "+6433316005;ext=1234"]
)
def test_one_desk_written_in_several_ways_is_one(written: str) -> None:
    assert canonical("phone", written) == "+6433316005;ext=1234"


EMAILS = [
    ("ada@example.com", "ada@example.com"),
    (" Ada@Example.COM ", "ada@example.com"),
    ("ada@example.com.", "ada@example.com"),  # the root's dot
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


# As delivered, its key. Gmail's rules are the only ones that are certain for every address of the provider.
FOLDED = [
    ("ada@gmail.com", "ada@gmail.com"),
    ("A.d.a+Shop@Gmail.com", "ada@gmail.com"),
    ("ada+a+b@gmail.com", "ada@gmail.com"),
    ("a.da@googlemail.com", "ada@gmail.com"),
    ("ada@GoogleMail.com.", "ada@gmail.com"),
    ("ada.1@gmail.com", "ada1@gmail.com"),
    ("maria.silva@gmail.com", "mariasilva@gmail.com"),
    ("maria.silva1@gmail.com", "mariasilva1@gmail.com"),  # somebody else
    # What cannot be a name at Google equals only itself.
    ("+shop@gmail.com", "+shop@gmail.com"),
    ("...@gmail.com", "...@gmail.com"),
    ('"a.d.a"@gmail.com', '"a.d.a"@gmail.com'),
    ("a.d-a@gmail.com", "a.d-a@gmail.com"),
    ("\u00e9.ve@gmail.com", "\u00e9.ve@gmail.com"),
    ("a@da@gmail.com", "a@da@gmail.com"),
    # Nobody else's dots, tags and domains are touched: libraries that do so join two people at live.com.
    *[
        (f"a.d.a+shop@{domain}", f"a.d.a+shop@{domain}")
        for domain in ("example.com", "outlook.com", "live.com", "icloud.com", "me.com", "ya.ru", "proton.me", "yahoo.com", "fastmail.com")
    ],
    ("a.d.a@mail.gmail.com", "a.d.a@mail.gmail.com"),
    ("a.d.a@gmail.co", "a.d.a@gmail.co"),
    ("a.d.a@gmail.com.example.com", "a.d.a@gmail.com.example.com"),
    ("a.d.a@notgmail.com", "a.d.a@notgmail.com"),
    ("a.d.a@google.com", "a.d.a@google.com"),  # a firm hosted by Google: its dots count
    ("a.d.a@gm\u0430il.com", "a.d.a@xn--gmil-63d.com"),  # a Cyrillic a
]


@pytest.mark.parametrize(("delivered", "key"), FOLDED, ids=range(len(FOLDED)))
def test_provider_rules_are_folded_only_where_they_are_certain(delivered: str, key: str) -> None:
    assert canonical("email", delivered) == key


# Two canonical values, and whether they are worth a suggestion.
LIKELY = [
    ("phone", "+5491123456789", "+541123456789", True),  # Argentina, with and without the 9
    ("phone", "+5491123456789", "+541123456780", False),
    ("phone", "+22507123456", "+2250707123456", True),  # Ivory Coast, before and after 2021
    ("phone", "+22507123456", "+2252707123456", True),
    ("phone", "+22507123456", "+2250807123456", False),  # no operator has 08
    ("phone", "+2250707123456", "+2250507123456", False),  # two new numbers are two
    ("phone", "+22997123456", "+2290197123456", True),  # Benin, before and after 2024
    ("phone", "+22997123456", "+2290297123456", False),
    ("phone", "+12025550123", "+12025550124", False),
    ("phone", "+12025550123", "+12025550123;ext=1", False),
    ("phone", "+5491123456789;ext=1", "+541123456789;ext=1", False),
    ("phone", "+554132345678", "+5541932345678", False),  # Brazil's landline is nobody's mobile number
    ("email", "ada+shop@icloud.com", "ada@icloud.com", True),
    ("email", "ada@me.com", "ada@icloud.com", True),
    ("email", "ada+shop@mac.com", "ada@me.com", True),
    ("email", "a.da@icloud.com", "ada@icloud.com", False),  # Apple's dots count
    ("email", "ada+shop@outlook.com", "ada@outlook.com", True),
    ("email", "ada@outlook.com", "ada@hotmail.com", False),  # two accounts
    ("email", "a.da@live.com", "ada@live.com", False),  # two people, as two libraries did not know
    ("email", "ada+a@hotmail.co.uk", "ada+b@hotmail.co.uk", True),
    ("email", "ada@ya.ru", "ada@yandex.ru", True),
    ("email", "ada@yandex.com", "ada@yandex.kz", True),
    ("email", "ada+x@ya.ru", "ada@ya.ru", False),  # no page of Yandex's is known to say so
    ("email", "a.d_a-1@pm.me", "ada1@proton.me", True),
    ("email", "ada@protonmail.com", "ada@proton.me", True),
    ("email", "ada+x@fastmail.com", "ada@fastmail.com", True),
    ("email", "ada@fastmail.com", "ada@fastmail.fm", False),
    ("email", "ada+shop@example.com", "ada@example.com", False),  # an unknown domain: two mailboxes for all we know
    ("email", "ada@gmail.com", "ada@example.com", False),
    ("email", "+shop@icloud.com", "+other@icloud.com", False),  # nothing is left to compare
    ("user_id", "ada@icloud.com", "ada@me.com", False),
    ("wa_user_id", "+5491123456789", "+541123456789", False),
]


@pytest.mark.parametrize(("kind", "left", "right", "likely"), LIKELY)
def test_what_is_only_likely_shares_a_suggestion_key_and_no_canonical_value(kind: str, left: str, right: str, likely: bool) -> None:
    assert canonical(kind, left) == left
    assert canonical(kind, right) == right
    assert bool(set(suggestion_keys(kind, left)) & set(suggestion_keys(kind, right))) is likely


def test_every_provider_rule_speaks_of_its_own_domain() -> None:
    assert all(PROVIDERS[rule.home] == rule for rule in PROVIDERS.values())
    assert not {"gmail.com", "googlemail.com"} & PROVIDERS.keys()  # certain, so folded
    assert all("." not in rule.ignored for rule in PROVIDERS.values() if rule.home != "proton.me")


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
    st.from_regex(r"\+?(55|521|549?|225|229)[0-9]{8,11}", fullmatch=True),
    st.from_regex(r"[a-z.+\"-]{1,8}@(gmail|googlemail)\.com", fullmatch=True),
)
REGIONS = st.sampled_from(["", "US", "GB", "BR", "MX", "AR", "IT", "JP", "AU", "SG", "DE", "KR", "CI"])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["phone", "email", "user_id", "device"]), ANYTHING, REGIONS)
@example("email", "\u0130@example.com", "")  # a capital whose lower case is two code points
@example("email", "a@\u2126hm.example", "")
@example("email", ".+@gmail.com", "")
@example("phone", "+5210123456789", "")
@example("phone", "310000001", "")  # a trunk zero comes off, then another, then another
def test_a_canonical_value_is_its_own_canonical_value_and_can_be_stored(kind: str, value: str, region: str) -> None:
    once = canonical(kind, value, region)
    if once is not None:
        assert canonical(kind, once) == canonical(kind, once, "US") == once
        assert all(key.startswith(f"{kind}~") for key in suggestion_keys(kind, once))
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


KINDS_OF_NUMBER = [
    phonenumbers.PhoneNumberType.FIXED_LINE,
    phonenumbers.PhoneNumberType.MOBILE,
    phonenumbers.PhoneNumberType.TOLL_FREE,
    phonenumbers.PhoneNumberType.UAN,
]


@st.composite
def valid_numbers(draw: st.DrawFn) -> str:
    """E.164 of a number libphonenumber holds for assigned: a country's example, its last digits drawn."""
    region = draw(st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)))
    number = phonenumbers.example_number_for_type(region, draw(st.sampled_from(KINDS_OF_NUMBER)))
    number = number or phonenumbers.example_number(region)
    written = str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
    tail = draw(st.text("0123456789", max_size=min(5, len(str(number.national_number)) - 1)))
    drawn = written[: len(written) - len(tail)] + tail
    return drawn if phonenumbers.is_valid_number(phonenumbers.parse(drawn)) else written


@given(valid_numbers())
@settings(max_examples=1_500, deadline=None)
@example("+551170000000")  # a radio line (SME) had eight digits until 2018, and takes the rule of the mobile numbers
def test_no_two_valid_numbers_become_one_but_by_the_rule_of_brazil(number: str) -> None:
    # Whatever is its own canonical value shares it with no other valid number.
    if module._OLD_BRAZILIAN_MOBILE.fullmatch(number):
        assert canonical("phone", number) == f"{number[:5]}9{number[5:]}"
    else:
        assert canonical("phone", number) == number
        assert canonical("phone", number[1:]) == number  # as WhatsApp delivers it
    assert module._OLD_MEXICAN_MOBILE.fullmatch(number) is None  # the other rule turns what is no number into one


@pytest.mark.parametrize("number", ["+12025550123", "+447700900123", "+4915123456789", "+33612345678", "+558000464636"])
def test_everyday_numbers_need_no_parse(number: str) -> None:
    assert module._unambiguous(number)
