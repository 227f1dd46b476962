"""Who looks like one person: hints with reasons for an agent, and silence where there is nothing worth a look."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.customers.matching import BAR, LONGEST_KEY, Person, birth, compare, fold, keys, looks_like, mailbox, sound, words


def person(id_: int, name: str = "", *addresses: str, proven: bool = True, **record: str) -> Person:
    """Somebody with these mail addresses and numbers, which they wrote from unless not `proven`."""
    emails = tuple(one for one in addresses if "@" in one)
    phones = tuple(one for one in addresses if "@" not in one)
    return Person(id_, (name,) if name else (), emails, phones, record, frozenset(addresses) if proven else frozenset())


def match(left: Person, right: Person) -> tuple[float, str] | None:
    """Score and reasons; both ways round alike, and never for people whom no key brings together."""
    found, back = compare(left, right), compare(right, left)
    assert (found is None) == (back is None)
    if found is None or back is None:
        return None
    assert found.score == back.score
    assert (found.left_id, found.right_id) == (back.left_id, back.right_id)
    assert found.left_id < found.right_id
    assert keys(left) & keys(right), "worth a look, but nobody would look"
    return found.score, found.reason


def pair(left: tuple[Any, ...], right: tuple[Any, ...], **record: tuple[str, str]) -> tuple[Person, Person]:
    one = {name: values[0] for name, values in record.items() if values[0]}
    other = {name: values[1] for name, values in record.items() if values[1]}
    return person(1, *left, **one), person(2, *right, **other)


HOME = {"street": ("Rua Augusta 7", "Rua Augusta 7"), "postcode": ("1100-053", "1100053"), "city": ("Lisboa", "Lisboa")}
BORN = {"date_of_birth": ("1984-02-11", "1984-02-11")}

LIKELY: dict[str, tuple[tuple[Person, Person], str]] = {
    "name and birthday": (pair(("Maria Silva",), ("Maria Silva",), **BORN), "Same name, Maria Silva; same date of birth."),
    "words of a name in another order, accents, a title": (
        pair(("Dr. João da Silva",), ("SILVA, Joao",), **BORN),
        "Same name, Dr. João da Silva; same date of birth.",
    ),
    "a slip in the name": (
        pair(("Maria Silva",), ("Maria Silvia",), **BORN),
        "Same date of birth; similar names, Maria Silva and Maria Silvia.",
    ),
    "a slip in the birthday": (
        pair(("Maria Silva",), ("Maria Silva",), date_of_birth=("1984-02-11", "1984-02-12")),
        "Same name, Maria Silva; dates of birth that differ in one place.",
    ),
    "day and month exchanged": (
        pair(("Maria Silva",), ("Maria Silva",), date_of_birth=("1984-02-11", "11/2/1984"), **{"city": ("Lisboa", "Lisboa")}),
        "Same name, Maria Silva; same date of birth; same town.",
    ),
    "name and postal address": (
        pair(("Maria Silva",), ("Maria Silva",), **HOME),
        "Same name, Maria Silva; same street and same postcode.",
    ),
    "a new surname at the same address and birthday": (
        pair(("Maria Silva",), ("Maria Costa",), **HOME, **BORN),
        "Same date of birth; same street and same postcode; both are called Maria.",
    ),
    "name and company": (
        pair(("Maria Silva",), ("Maria Silva",), company=("Padaria Lda.", "Padaria, Lda")),
        "Same name, Maria Silva; same company.",
    ),
    "given and family name kept apart": (
        (
            person(1, given_name="Ana", surname="de la Cruz", date_of_birth="19840211"),
            person(2, given_name="Ana", surname="Delacruz", date_of_birth="19840211"),
        ),
        "Same name, Ana de la Cruz; same date of birth.",
    ),
    "a local part that no name explains": (
        pair(("", "jk.petrov84@gmail.com"), ("", "jk.petrov84@work.example")),
        "The part before the @ is the same.",
    ),
    "name and the address made of it, at two providers": (
        pair(("Maria Silva", "maria.silva@gmail.com"), ("Maria Silva", "maria.silva@hotmail.com")),
        "Same name, Maria Silva; the part before the @ is the same.",
    ),
    "one mailbox by its provider's rule": (
        pair(("", "ana@icloud.com"), ("", "ana@me.com")),
        "The same mailbox by its provider's rules.",
    ),
    "a plus tag at a known provider": (
        pair(("", "ana.b+shop@outlook.com"), ("", "ana.b@outlook.com")),
        "The same mailbox by its provider's rules.",
    ),
    "a plus tag elsewhere": (
        pair(("", "ana+shop@firm.example"), ("", "ana@firm.example")),
        "The same mail address but for what follows the plus.",
    ),
    "a slip in a typed number": (
        (person(1, "Maria Silva", "+5511987650001"), person(2, "Maria Silva", "+5511987650007", proven=False)),
        "Same name, Maria Silva; the numbers differ in one digit.",
    ),
    "a digit forgotten in a typed number": (
        (person(1, "Maria Silva", "+351912345678"), person(2, "Maria Silva", "+35191234678", proven=False)),
        "Same name, Maria Silva; one number lacks a digit of the other.",
    ),
    "a slip in a typed mail address": (
        (person(1, "Maria Silva", "mariasilva@gmail.com"), person(2, "Maria Silva", "mariasliva@gmail.com", proven=False)),
        "Same name, Maria Silva; the mail addresses differ in one letter.",
    ),
    "Argentina with and without the 9": (
        pair(("", "+5491123456789"), ("", "+541123456789")),
        "The same number, written in two ways of its country.",
    ),
    "Ivory Coast before and after 2021": (
        pair(("", "+2250712345678"), ("", "+22512345678")),
        "The same number, written in two ways of its country.",
    ),
    "a customer number": (
        pair(("",), ("M. S.",), customer_number=("K-100 234", "k100234")),
        "The same customer number.",
    ),
    "name and an address claimed": (
        (person(1, "Ana Reis", "ana@firm.example"), person(2, "Ana Reis", "ana@firm.example", proven=False)),
        "One gave ana@firm.example, which the other has proved; same name, Ana Reis.",
    ),
    "contradictions are told": (
        pair(("Maria Silva",), ("Maria Silva",), **HOME, date_of_birth=("1984-02-11", "1951-12-30")),
        "Same name, Maria Silva; same street and same postcode; but other dates of birth.",
    ),
    "names in another script": (pair(("Мария Иванова",), ("Иванова Мария",), **BORN), "Same name, Мария Иванова; same date of birth."),
}


@pytest.mark.parametrize(("people", "reason"), LIKELY.values(), ids=LIKELY.keys())
def test_who_looks_like_one_person_is_worth_a_look_and_the_reason_says_why(people: tuple[Person, Person], reason: str) -> None:
    found = match(*people)
    assert found is not None
    assert found[1] == reason
    assert BAR <= found[0] <= 0.99


NOTHING: dict[str, tuple[Person, Person]] = {
    "a name alone": pair(("Maria Silva",), ("Maria Silva",)),
    "a name and a town": pair(("Maria Silva",), ("Maria Silva",), city=("São Paulo", "Sao Paulo")),
    "a name, a town and a look-alike address": pair(
        ("Maria Silva", "maria.silva@gmail.com"), ("Maria Silva", "maria.silva1@gmail.com"), city=("São Paulo", "São Paulo")
    ),
    "two numbers beside each other that both wrote": pair(("Maria Silva", "+5511987650001"), ("Maria Silva", "+5511987650002")),
    "a number one digit off without a name": (person(1, "", "+5511987650001"), person(2, "", "+5511987650002", proven=False)),
    "a first name": pair(("Ana",), ("Ana",), city=("Lisboa", "Lisboa")),
    "a birthday alone": pair(("Ana Reis",), ("Tom Berg",), **BORN),
    "a birthday of nobody": pair(("Ana Reis",), ("Ana Reis",), date_of_birth=("1900-01-01", "1900-01-01")),
    "a family at one address": pair(("Maria Silva",), ("Paulo Silva",), **HOME),
    "a family's number and name on record": (
        person(1, "Maria Silva", "+351912345678", proven=False),
        person(2, "Paulo Silva", "+351912345678", proven=False),
    ),
    "parent and child": pair(("Maria Silva",), ("Ana Silva",), **HOME, date_of_birth=("1960-02-11", "1994-10-03")),
    "a short local part": pair(("", "ana@gmail.com"), ("", "ana@work.example")),
    "a first name as the local part": pair(("Maria", "maria@gmail.com"), ("Maria", "maria@work.example")),
    "a local part two names explain": pair(("", "maria.silva@gmail.com"), ("", "maria.silva@work.example")),
    "a role mailbox of two firms": pair(("Customer Support", "support@a.example"), ("Customer Support", "support@b.example")),
    "role mailboxes with tags": pair(("", "info+a@firm.example"), ("", "info+b@firm.example")),
    "a domain that looks like another": pair(("Ana Reis", "jk.petrov84@acme.com"), ("Ana Reis", "jk.petrov84@acrne.com")),
    "one letter of a domain": pair(("Ana Reis", "jk.petrov84@paypal.com"), ("Ana Reis", "jk.petrov84@paypa1.com")),
    "a domain in other letters": pair(("Ana Reis", "jk.petrov84@acme.com"), ("Ana Reis", "jk.petrov84@xn--cme-5cd.com")),
    "the same word under another ending": pair(("Ana Reis", "jk.petrov84@acme.com"), ("Ana Reis", "jk.petrov84@acme.co")),
    "the word within a longer one": pair(("Ana Reis", "jk.petrov84@acme.com"), ("Ana Reis", "jk.petrov84@mail-acme.net")),
    "dots where a provider tells them apart": pair(("", "anna.bell@live.com"), ("", "annabell@live.com")),
    "one more digit is another mailbox": (
        person(1, "Ana Reis", "anareis@gmail.com"),
        person(2, "Ana Reis", "anareis7@gmail.com", proven=False),
    ),
    "two desks behind one number": pair(("Ana Reis", "+3512100000;ext=1"), ("Ana Reis", "+3512100000;ext=2")),
    "a placeholder for a customer number": pair(("",), ("",), customer_number=("0000", "0000")),
    "a number shown where a name should be": pair(("+351 912 345 678",), ("+351 912 345 678",), city=("Lisboa", "Lisboa")),
    "a title": pair(("Dr.",), ("Dr.",), **BORN),
    "attributes that say nothing": pair(("Ana Reis",), ("Ana Reis",), plan=("gold", "gold"), favourite=("red", "red")),
    "nothing at all": (person(1), person(2)),
}


@pytest.mark.parametrize("people", NOTHING.values(), ids=NOTHING.keys())
def test_what_strangers_share_is_not_worth_a_look(people: tuple[Person, Person]) -> None:
    assert match(*people) is None


def test_what_several_people_chose_tells_less_of_two() -> None:
    left, right = pair(("Maria Silva", "maria.silva@gmail.com"), ("Maria Silva", "mariasilva@hotmail.com"))
    assert compare(left, right) is not None
    assert compare(left, right, {"local:mariasilva"}) is None
    odd, same = pair(("Maria Silva", "jk.petrov84@gmail.com"), ("Maria Silva", "jk.petrov84@hotmail.com"))
    rare, common = compare(odd, same), compare(odd, same, {"local:jkpetrov84"})
    assert rare is not None
    assert common is not None
    assert common.score < rare.score


def test_more_evidence_ranks_higher() -> None:
    name = {"left": ("Maria Silva", "maria.silva@gmail.com"), "right": ("Maria Silva", "maria.silva@hotmail.com")}
    ranks = [
        match(*pair(name["left"], name["right"])),
        match(*pair(name["left"], name["right"], city=("Lisboa", "Lisboa"))),
        match(*pair(name["left"], name["right"], company=("Padaria", "Padaria"))),
    ]
    scores = [found[0] for found in ranks if found is not None]
    assert len(scores) == 3
    assert scores == sorted(set(scores))


BIRTHS = [
    ("1984-02-11", "19840211"),
    ("19840211", "19840211"),
    ("1984/02/11", "19840211"),
    ("1984-02-11T00:00:00Z", "19840211"),
    ("11.2.1984", "19840211"),
    ("11/02/1984", "19840211"),  # day first, unless it cannot be
    ("02/28/1984", "19840228"),
    ("1970-01-01", ""),  # an empty time
    ("1900-01-01", ""),
    ("in February", ""),
    ("\u0661\u0669\u0668\u0664-\u0660\u0662-\u0661\u0661", ""),  # Arabic-Indic digits: a form no record was seen to have
    ("", ""),
]


@pytest.mark.parametrize(("written", "date"), BIRTHS)
def test_a_date_of_birth_is_read_in_the_forms_records_have(written: str, date: str) -> None:
    assert birth(written) == date


MAILBOXES = [
    ("a.b+c@gmail.com", ("ab", "gmail.com", True)),
    ("a.b@googlemail.com", ("ab", "gmail.com", True)),
    ("a.b+c@live.com", ("a.b", "live.com", True)),
    ("a@mac.com", ("a", "icloud.com", True)),
    ("a@ya.ru", ("a", "yandex.ru", True)),
    ("a+b@yahoo.com", ("a+b", "yahoo.com", True)),  # known, and ignores nothing there
    ("a+b@firm.example", ("a", "firm.example", False)),
    ("+b@firm.example", ("+b", "firm.example", False)),
]


@pytest.mark.parametrize(("address", "expected"), MAILBOXES)
def test_a_mailbox_is_what_its_provider_makes_of_an_address(address: str, expected: tuple[str, str, bool]) -> None:
    assert mailbox(address) == expected


def test_two_known_providers_are_not_one_trying_to_look_like_the_other() -> None:
    assert not looks_like("mail.ru", "gmail.com")
    assert looks_like("gmail.com", "gmai1.com")
    assert looks_like("gmail.com", "gmail.co")
    assert not looks_like("gmail.com", "work.example")


def test_folding_keeps_scripts_and_drops_accents() -> None:
    assert [fold(one) for one in ("João-Ángel O'Neill", "Straße", "Łódź Ørsted", "Мария", "मारिया", "김민준")] == [
        *("joao angel o neill", "strasse", "lodz orsted", "мария"),
        fold("मारिया"),
        "김민준",
    ]
    assert words("maria de la cruz 4") == ("maria", "cruz")
    assert words("m s") == ()
    assert sound("schmidt") == sound("schmitt") != sound("schulz")


@pytest.mark.parametrize("value", ["x" * 5_000, "\x00\ud800", "@", "+", " \n ", "1" * 400, "é" * 400])
def test_keys_are_short_and_storable_whatever_a_record_says(value: str) -> None:
    record = dict.fromkeys(("name", "surname", "company", "street", "postcode", "city", "customer_number", "date_of_birth"), value)
    odd = Person(1, (value, "Ana Reis"), ("ana@firm.example",), ("+351912345678",), record)
    found = keys(odd)
    assert found
    assert all(len(key) <= LONGEST_KEY and "\x00" not in key for key in found)
    "".join(found).encode()
    compare(odd, Person(2, ("Ana Reis",), (), (), record))


ANY = st.text(max_size=12)
MAILS = ["a.b@gmail.com", "ab+c@gmail.com", "info@a.example", "jk.petrov84@a.example", "@"]
PHONES = ["+351912345678", "+351912345679", "+541123456789", "+5491123456789;ext=2", "+1"]
PEOPLE = st.builds(
    Person,
    customer_id=st.integers(1, 9),
    names=st.lists(ANY | st.sampled_from(["Maria Silva", "Silva"]), max_size=3).map(tuple),
    emails=st.lists(st.sampled_from(MAILS), max_size=2).map(tuple),
    phones=st.lists(st.sampled_from(PHONES), max_size=2).map(tuple),
    attributes=st.dictionaries(st.sampled_from(["name", "dob", "postcode", "street", "city", "company", "ssn", "x"]), ANY, max_size=4),
)


@settings(max_examples=300, deadline=None)
@given(PEOPLE, PEOPLE)
def test_anybody_can_be_compared_with_anybody_and_both_ways_alike(left: Person, right: Person) -> None:
    found, back = compare(left, right), compare(right, left)
    assert (found is None) == (back is None)
    if found is not None and back is not None:
        assert found.score == back.score
        assert found.reasons
        assert "\n" not in found.reason
    assert keys(left) == keys(left)
