"""An address that many people answer for joins nobody; an address that is a person's name is never taken for one."""

from __future__ import annotations

import re

import pytest

from hub.customers.bridging import PLACEHOLDERS, ROLES, why_not
from hub.customers.canonical import canonical

ROLE = "role mailbox"

MAILBOXES = [
    ("info@smallfirm.example", ROLE),
    ("reception@hotel.example", ROLE),
    ("sales@firm.example", ROLE),
    ("support@firm.example", ROLE),
    ("billing@firm.example", ROLE),
    ("office@firm.example", ROLE),
    ("noreply@firm.example", ROLE),
    ("Info@Firm.Example", ROLE),
    ("postmaster@firm.example", ROLE),  # RFC 2142
    ("buchhaltung@firma.example", ROLE),
    ("büro@firma.example", ROLE),
    ("buero@firma.example", ROLE),
    ("facturación@empresa.example", ROLE),
    ("serviceclient@societe.example", ROLE),
    ("atendimento@empresa.example", ROLE),
    ("cobrança@empresa.example", ROLE),
    ("amministrazione@ditta.example", ROLE),
    ("klantenservice@bedrijf.example", ROLE),
    ("info@gmail.com", ROLE),  # at a private provider too
    # Written apart, numbered, tagged, for a region.
    ("no-reply@firm.example", ROLE),
    ("do_not_reply@firm.example", ROLE),
    ("customer.service@firm.example", ROLE),
    ("info2@firm.example", ROLE),
    ("support-2@firm.example", ROLE),
    ("support+ticket42@firm.example", ROLE),
    ("sales-emea@firm.example", ROLE),
    ("uk.sales@firm.example", ROLE),
    ("support.de@firm.example", ROLE),
    ("it-support@firm.example", ROLE),
    ("billing_dept@firm.example", ROLE),
    # Programs.
    ("noreply-x7f3@firm.example", "program"),
    ("no-reply.4711@firm.example", "program"),
    ("bounces+ada=example.com@firm.example", "program"),
    ("mailer-daemon.42@firm.example", "program"),
    # Where nobody gave an address.
    ("none@none.example", "placeholder"),
    ("no.email@firm.example", "placeholder"),
    ("null@firm.example", "placeholder"),
    # People, whatever lists of prefixes hold.
    ("ada@firm.example", ""),
    ("alexa@firm.example", ""),
    ("denver@firm.example", ""),
    ("paris@firm.example", ""),
    ("sydney@firm.example", ""),
    ("bill@firm.example", ""),
    ("maria.sales@firm.example", ""),  # a surname in Brazil and Spain
    ("sales.maria@firm.example", ""),
    ("infante@firm.example", ""),
    ("infobert@firm.example", ""),
    ("supporter@firm.example", ""),
    ("team.smith@firm.example", ""),
    ("info-berlin@firm.example", ""),  # a town, or a Berlin: not certain
    ("jean.direction@firm.example", ""),
    ("it.ada@firm.example", ""),
    ("ada+info@firm.example", ""),  # Ada's own tag
    ("ada@info.example", ""),
    ("ada@sales.firm.example", ""),
    ("us@firm.example", ""),  # a region alone is no role
    ("uk.de@firm.example", ""),
    ("42@firm.example", ""),
    ("+info@firm.example", ""),
    ("-@firm.example", ""),
    ("nobodyknows@firm.example", ""),
    ("bounce.house@firm.example", "program"),  # the price of knowing bounces by their beginning
]


@pytest.mark.parametrize(("address", "why"), MAILBOXES)
def test_a_role_mailbox_may_not_bridge_and_a_name_may(address: str, why: str) -> None:
    value = canonical("email", address)
    assert value is not None
    reason = why_not("email", value)
    assert (why in reason) if why else reason == ""


NUMBERS = [
    ("+18005550123", "toll-free"),
    ("+448001111111", "toll-free"),
    ("+558000464636", "toll-free"),
    ("+80012345678", "toll-free"),  # of no country
    ("+443001234567", "desks"),  # 03: a company's number
    ("+5540041234", "shared-cost"),
    ("+19005551234", "premium-rate"),
    ("+442071838750;ext=7", "extension"),
    ("+442071838750;ext=0", "extension"),
    ("+18005550123;ext=7", "extension"),
    ("+15550123", "shorter"),  # of each town another
    ("+49110", "shorter"),
    ("+22507123456", "shorter"),  # Ivory Coast before 2021
    # Anybody's.
    ("+12025550123", ""),
    ("+447700900123", ""),  # possible, not assigned
    ("+442071838750", ""),
    ("+5541988887777", ""),
    ("+554132345678", ""),
    ("+525512345678", ""),
    ("+5491123456789", ""),
    ("+2250707123456", ""),
    ("+390612345678", ""),
    ("+6834001", ""),  # all the digits Niue has
]


@pytest.mark.parametrize(("value", "why"), NUMBERS)
def test_a_line_that_many_answer_may_not_bridge_and_a_subscribers_may(value: str, why: str) -> None:
    assert canonical("phone", value) == value
    reason = why_not("phone", value)
    assert (why in reason) if why else reason == ""


@pytest.mark.parametrize("value", ["67890", "AMAZON", "Ada"])
def test_a_short_code_or_a_word_may_not_bridge(value: str) -> None:
    assert "short code" in why_not("sender_word", value)


@pytest.mark.parametrize(
    ("kind", "value"), [("user_id", "info"), ("user_id", "u77"), ("wa_user_id", "US.13491208655302741918"), ("device", "d1")]
)
def test_the_value_of_an_account_or_a_browser_says_nothing_against_it(kind: str, value: str) -> None:
    assert why_not(kind, value) == ""


@pytest.mark.parametrize("value", ["", "not a number", "+", "+0"])
def test_what_is_no_number_may_not_bridge(value: str) -> None:
    assert canonical("phone", value) is None
    assert why_not("phone", value) == "no full phone number"


# First names and surnames that are also words (places, months, goods, posts), so that whoever adds a word to the roles meets them.
NAMES = """
    abbott ada alexa angel april art august austin autumn bailey baker banks berlin bill bishop board bonjour brandy brook brooks bush
    camille candy carol carter chance chancellor charity charlotte chase chelsea christian church clay cole constant cook crystal daisy
    dale dallas dawn dean denver destiny diamond dolly drew duke earl eden ellis faith fisher florence forest francis frank gene gift
    ginger glen grace grant hazel heather holly hope hunter iris ivy jack jade jasmine jean jersey jewel joy june justice kelly king
    lager lane law lee lily london lopez love lucky madison major marina mark marshall martin mason may mercy merit miles miller noone
    olive page paige paris parker pat patience pearl penny phoenix piper post price prince queen ray rich robin rose ruby rusty sage
    sandy scout sergeant shepherd sierra sky smith sonny star sterling stone store summer sunny sydney taylor thorne tienda tiffany
    trinity vagas valencia victoria violet virginia ward welcome west will winter wolf wood woods young
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_no_name_is_a_role(name: str) -> None:
    assert name not in ROLES | PLACEHOLDERS
    assert why_not("email", f"{name}@firm.example") == ""


def test_the_roles_are_plain_words_each_of_which_is_found() -> None:
    assert 200 <= len(ROLES) <= 260
    for word in ROLES | PLACEHOLDERS:
        assert re.fullmatch(r"[a-z]{2,}", word)  # matched without accents, separators and numbers
        assert why_not("email", f"{word}@firm.example")
    assert not ROLES & PLACEHOLDERS
    rfc_2142 = "info marketing sales support abuse noc security postmaster hostmaster usenet news webmaster www uucp ftp"
    assert set(rfc_2142.split()) <= ROLES


def test_no_reason_says_that_somebody_is_not_a_person() -> None:
    reasons = {why_not("email", address) for address, _ in MAILBOXES} | {why_not("phone", value) for value, _ in NUMBERS}
    reasons.add(why_not("sender_word", "67890"))
    assert len({re.sub(r"\(.*?@\)", "", reason) for reason in reasons}) >= 10
    assert not any("not a person" in reason or "no person" in reason for reason in reasons)


def test_a_known_value_is_not_judged_again() -> None:
    why_not("phone", "+12025550199")
    before = why_not.cache_info()
    for _ in range(1_000):
        why_not("phone", "+12025550199")
    assert why_not.cache_info().hits - before.hits == 1_000
    assert why_not.cache_info().misses == before.misses
