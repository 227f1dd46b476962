"""Whether two customers look like one person: a hint for an agent's eyes, never a reason to join. Pure.

Each field that two people share or contradict each other in adds or takes evidence, in bits as in record linkage (Fellegi and
Sunter, "A theory for record linkage", 1969): how much likelier this agreement is of one person than of two strangers. The weights
are round figures set by hand and measured by `python -m bench --only people`; `score` turns their sum into 0 to 1, reckoned for a base
of a hundred thousand customers. A name alone, with the city, and even with a look-alike address, stays below the bar.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from rapidfuzz import fuzz
from rapidfuzz.distance import OSA, JaroWinkler

BAR = 0.5  # the lowest score worth an agent's look
PRIOR = 17.0  # bits: log2 of the customers among whom somebody is looked for
MOST_IF_GIVEN = 0.75  # a name beside it adds nothing: it is given along
MOST_NAMES = 4  # of one customer
MOST_REASONS = 4
LONGEST_KEY = 160  # characters

# An attribute as businesses name it -> what it is to us. What is not in the table says nothing.
FIELDS: dict[str, str] = {
    **dict.fromkeys(("name", "full_name"), "name"),
    **dict.fromkeys(("given_name", "first_name", "firstname"), "given"),
    **dict.fromkeys(("surname", "last_name", "lastname", "family_name"), "surname"),
    **dict.fromkeys(("date_of_birth", "birth_date", "birthdate", "birthday", "dob"), "born"),
    **dict.fromkeys(("postcode", "postal_code", "zip", "zip_code", "zipcode"), "postcode"),
    **dict.fromkeys(("street", "street_address", "address", "address_1", "address_line_1"), "street"),
    **dict.fromkeys(("street_number", "house_number"), "house"),
    **dict.fromkeys(("address_2", "address_line_2"), "place"),
    **dict.fromkeys(("city", "town", "suburb", "locality"), "city"),
    **dict.fromkeys(("company", "company_name", "organisation", "organization", "employer"), "company"),
}
# Numbers that one person has: an equal one is nearly proof, and still only a hint, since attributes are not checked.
NUMBERS = frozenset(
    {
        *("customer_number", "membership_number", "member_id", "loyalty_number", "loyalty_id", "external_id", "crm_id"),
        *("soc_sec_id", "ssn", "tax_number", "national_id", "passport_number", "patient_id", "student_id"),
    }
)

# A mail provider's domain -> the domain it is the same as, and what its mailboxes ignore. Only hints follow from it: canonical
# addresses know the rules that are certain. No rule here strips dots but Gmail's: elsewhere they tell people apart.
PROVIDERS: dict[str, tuple[str, str]] = {
    "gmail.com": ("gmail.com", "dots and plus"),
    "googlemail.com": ("gmail.com", "dots and plus"),
    **{domain: (domain, "plus") for domain in ("outlook.com", "hotmail.com", "live.com", "msn.com", "fastmail.com", "zoho.com")},
    **dict.fromkeys(("icloud.com", "me.com", "mac.com"), ("icloud.com", "plus")),
    **dict.fromkeys(("proton.me", "protonmail.com", "pm.me"), ("proton.me", "plus")),
    **dict.fromkeys(("ya.ru", "yandex.ru", "yandex.com"), ("yandex.ru", "plus")),
    **{domain: (domain, "") for domain in ("yahoo.com", "aol.com", "gmx.de", "gmx.net", "web.de", "uol.com.br", "mail.ru", "qq.com")},
}
# Mailboxes of a task, not a person.
ROLES = frozenset(
    {
        *("abuse", "accounting", "accounts", "admin", "billing", "career", "careers", "compras", "contact", "contacto", "contato"),
        *("customerservice", "finance", "hello", "help", "helpdesk", "hostmaster", "info", "jobs", "kontakt", "mail", "marketing"),
        *("noreply", "no-reply", "office", "orders", "postmaster", "press", "purchasing", "rechnung", "reservations", "sales", "service"),
        *("shop", "soporte", "suporte", "support", "team", "vendas", "ventas", "webmaster"),
    }
)

# Words in a name that say nothing about whose it is.
_WORDLESS = frozenset(
    {
        *("mr", "mrs", "ms", "miss", "mx", "dr", "prof", "sir", "sr", "sra", "jr", "herr", "frau", "mme", "mlle", "don", "dona", "ing"),
        *("de", "da", "do", "dos", "das", "del", "della", "di", "du", "la", "le", "el", "al", "bin", "ibn", "van", "von", "der", "den"),
        *("ter", "ten", "zu", "y", "e", "of", "the", "via", "and"),
    }
)
# Letters that are no accent on another one.
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "\u0131": "i"})
_ACCENT = re.compile("[\u0300-\u036f]")
_WORD = re.compile(r"[^\W_]+")
_PLACEHOLDER_BIRTHS = frozenset({"19000101", "19700101", "00010101", "18000101"})
_SOUND = str.maketrans("bfpvcgjkqsxzdtlmnr", "111122222222334556", "aeiouyhw")


@dataclass(frozen=True)
class Person:
    """What is known of a customer that may tell who they are.

    `emails` and `phones` are canonical; `proven` are those of them that somebody wrote from or proved: they hold no typing mistakes.
    """

    customer_id: int
    names: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    proven: frozenset[str] = frozenset()

    @cached_property
    def fields(self) -> dict[str, str]:
        """The attributes that say something, folded, by what they are to us."""
        known = {FIELDS[name]: value for name, raw in self.attributes.items() if name in FIELDS and (value := fold(raw))}
        if "born" in known:
            born = birth(next(raw for name, raw in self.attributes.items() if FIELDS.get(name) == "born"))
            known = {**known, "born": born} if born else {name: value for name, value in known.items() if name != "born"}
        if "postcode" in known:
            known["postcode"] = known["postcode"].replace(" ", "")
        return known

    @cached_property
    def numbers(self) -> dict[str, str]:
        """Customer numbers and the like, by the attribute's name."""
        known = ((name, fold(raw).replace(" ", "")) for name, raw in self.attributes.items() if name in NUMBERS)
        return {name: value for name, value in known if value.strip("0")}

    @cached_property
    def called(self) -> tuple[tuple[str, ...], ...]:
        """The words of each name this customer goes by."""
        given, surname = self.fields.get("given", ""), self.fields.get("surname", "")
        joined = f"{given} {surname.replace(' ', '')}"  # De la Cruz, Dela Cruz
        all_names = (f"{given} {surname}", joined, self.fields.get("name", ""), *(fold(name) for name in self.names))
        return tuple(dict.fromkeys(found for name in all_names if (found := words(name))))[:MOST_NAMES]

    @cached_property
    def name(self) -> str:
        """The name to call this customer by in a reason."""
        stated = " ".join(self.attributes.get(name, "") for name in ("given_name", "surname")).strip()
        said = next((name for name in self.names if words(fold(name))), "") or stated or " ".join(self.called[0] if self.called else ())
        return " ".join(said.split())[:80]


@dataclass(frozen=True, slots=True)
class Match:
    """Two customers who may be one person. `reasons` are in words, the weightiest first, what speaks against it last."""

    left_id: int
    right_id: int
    score: float
    reasons: tuple[str, ...]
    given: bool = False  # one merely gave what the other has proved: whoever pretends to be somebody does just that

    @property
    def reason(self) -> str:
        """The reasons as one sentence."""
        text = "; ".join(self.reasons)
        return f"{text[:1].upper()}{text[1:]}."


Evidence = tuple[float, str]  # bits, and in words what they are for ("" where it is not worth a word)
NOTHING: Evidence = (0.0, "")


def compare(a: Person, b: Person, common: Collection[str] = ()) -> Match | None:
    """How much two customers look like one person; None below the bar. Says nothing about whether they are.

    `common` are keys that others hold, too, besides these two: then what they stand for was chosen by several people already.
    """
    found = evidence(a, b, common)
    bits = sum(weight for weight, _ in found)
    score = 1.0 / (1.0 + 2.0 ** (PRIOR - bits))
    if score < BAR:
        return None
    said = sorted((one for one in found if one[1]), key=lambda one: -one[0])
    reasons = [text for weight, text in said if weight > 0][:MOST_REASONS]
    reasons += [f"but {text}" for weight, text in reversed(said) if weight < 0][:2]
    left, right = sorted((a.customer_id, b.customer_id))
    given = any(weight == GIVEN for weight, _ in found)
    return Match(left, right, round(min(score, MOST_IF_GIVEN if given else 0.99), 2), tuple(reasons), given)


def evidence(a: Person, b: Person, common: Collection[str] = ()) -> list[Evidence]:
    """What speaks for two customers being one person, and what against it."""
    return [_names(a, b), _addresses(a, b, common), _phones(a, b), *_numbers(a, b), *_records(a, b)]


# --- names ---


@lru_cache(maxsize=65_536)
def fold(text: str) -> str:
    """Lower case without accents and punctuation; words parted by one space."""
    plain = _ACCENT.sub("", unicodedata.normalize("NFKD", text.casefold())).translate(_LETTERS)
    return " ".join(_WORD.findall(unicodedata.normalize("NFC", plain)))


@lru_cache(maxsize=65_536)
def words(folded: str) -> tuple[str, ...]:
    """The words of a folded name that tell people apart; none with digits, as in a number shown where a name should be."""
    found = tuple(word for word in folded.split() if word not in _WORDLESS and not any(c.isdigit() for c in word))
    return found[:5] if any(len(word) > 1 for word in found) else ()


@lru_cache(maxsize=65_536)
def sound(word: str) -> str:
    """How a word sounds, roughly (Soundex, with the consonants of up to five sounds); a word in another script as it is written."""
    if not word.isascii():
        return word
    codes = word[1:].translate(_SOUND)
    short = "".join(code for at, code in enumerate(codes) if at == 0 or codes[at - 1] != code)
    return word[:1] + short[:4]


def _alike(a: str, b: str) -> float:
    """Evidence of two different words of a name, in bits."""
    if len(a) == 1 or len(b) == 1:
        return 1.0 if a[0] == b[0] else -4.0
    shorter = min(len(a), len(b))
    if shorter >= 4 and OSA.distance(a, b, score_cutoff=1) <= 1:
        return 4.5
    if JaroWinkler.similarity(a, b) >= (0.88 if shorter >= 4 else 0.93):
        return 3.5
    return 2.5 if shorter >= 4 and sound(a) == sound(b) else -4.0


@lru_cache(maxsize=65_536)
def _named(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[float, str]:
    """Evidence of two names, in bits, and how they agree: same, similar, partly, or not at all."""
    rest = list(b)
    left = []
    bits, equal = 0.0, 0
    for word in a:
        if word in rest:
            rest.remove(word)
            equal += 1
        else:
            left.append(word)
    # The first two words that agree are what people are told apart by; a third one adds little.
    bits = 6.5 * min(equal, 2) + 2.0 * max(equal - 2, 0)
    near = 0
    while left and rest:
        best, one, other = max(((_alike(one, other), one, other) for one in left for other in rest), key=lambda found: found[0])
        bits += best
        near += best > 1.0
        left.remove(one)
        rest.remove(other)
    if equal + near < 2 and OSA.distance("".join(a), "".join(b), score_cutoff=1) <= 1 and len(a) != len(b):
        return 9.0, "similar"  # a space too many or too few: Black Well
    if not equal and not near:
        return max(bits, -8.0), "not"
    if equal >= 2 and not near and (not left or not rest):
        return bits, "same"
    # One word of a longer name is a beginning, not a whole name.
    return bits, "similar" if equal + near >= 2 else "partly"


def _names(a: Person, b: Person) -> Evidence:
    if not a.called or not b.called:
        return NOTHING
    bits, how, one, other = max((*_named(x, y), x, y) for x in a.called for y in b.called)
    if how == "same":
        return bits, f"same name, {a.name}"
    if how == "similar":
        return bits, f"similar names, {a.name} and {b.name}"
    if how == "partly":
        shared = " ".join(word for word in one if word in other)
        return bits, f"both are called {shared.title()}" if shared and bits > 0 else ""
    return bits, "the names differ"


# --- mail addresses ---


@lru_cache(maxsize=65_536)
def mailbox(address: str) -> tuple[str, str, bool]:
    """The local part without what its provider ignores, the provider's domain, and whether that rule is the provider's own."""
    local, _, domain = address.rpartition("@")
    same_as, ignores = PROVIDERS.get(domain, (domain, None))
    if ignores == "":
        return local, same_as, True
    # Elsewhere, too, what follows a plus is nearly always a tag; nobody can know.
    plain = local.partition("+")[0] or local
    return plain.replace(".", "") if ignores == "dots and plus" else plain, same_as, ignores is not None


@lru_cache(maxsize=65_536)
def spoken(local: str) -> tuple[str, ...]:
    """The words of a local part: `maria.silva84` is maria and silva."""
    return tuple(word for word in re.split(r"[^a-z\u00e0-\U0010ffff]+", local) if word)


def undotted(local: str) -> str:
    """A local part as people choose it again at another provider, where dots may count or not."""
    return local.replace(".", "")


def local_key(local: str) -> str:
    """The key of who has this part before the @, wherever."""
    return f"local:{undotted(local)}"[:LONGEST_KEY]


def is_role(local: str) -> bool:
    """Whether a mailbox belongs to a task, not a person."""
    return local in ROLES or local.partition("-")[0] in ROLES


def looks_like(a: str, b: str) -> bool:
    """Whether one domain may have been chosen to be taken for the other: then an equal local part is no sign of anything."""
    if a in PROVIDERS and b in PROVIDERS:
        return False
    if "xn--" in a or "xn--" in b:
        return True
    shorter, longer = sorted((a, b), key=len)
    if shorter.split(".")[0] == longer.split(".")[0] or shorter.split(".")[0] in longer:
        return True
    return OSA.distance(a, b) <= 2 or JaroWinkler.similarity(a, b) >= 0.92


def _distinctive(local: str, a: Person, b: Person) -> float:
    """Evidence of an equal local part at two providers, in bits: the less a name explains it, the more."""
    said, digits = spoken(local), sum(c.isdigit() for c in local)
    if len(local) < 5 or not said or is_role(local):
        return 0.0
    named = {word for person in (a, b) for name in person.called for word in name}
    made = {first + last for first in named | {word[0] for word in named} for last in named | {word[0] for word in named}}  # msilva
    explained = all(len(word) == 1 or word in named or word in made for word in said)
    if digits >= 2 and len(local) >= 6:
        return 10.0 if explained or digits == len(local) else 14.0 if len(local) < 8 else 18.0
    if explained:
        return 4.5 if len(said) > 1 or len(local) >= 10 else 2.0
    return 8.0 if len(local) >= 7 else 4.0


def _address(x: str, y: str, a: Person, b: Person, common: Collection[str]) -> Evidence:
    if x == y:
        return (GIVEN, f"one gave {x}, which the other has proved") if _merely_given(x, a, b) else (16.0, "the same mail address")
    (one, here, known), (other, there, _) = mailbox(x), mailbox(y)
    if one == other and here == there:
        if is_role(one):
            return NOTHING
        if known:
            return 20.0, "the same mailbox by its provider's rules"
        return 18.0, "the same mail address but for what follows the plus"
    if here == there:
        # A slip of the keyboard is possible in what was typed, not in what somebody wrote from. One more digit is another person.
        mistaken = not (x in a.proven and y in b.proven) and OSA.distance(one, other, score_cutoff=1) == 1
        digits = [c for c in one if c.isdigit()] == [c for c in other if c.isdigit()]
        return (9.0, "the mail addresses differ in one letter") if mistaken and digits and len(one) >= 6 else NOTHING
    if undotted(one) == undotted(other) and not looks_like(here, there):
        # Told apart by words where one of the two is written with dots.
        bits = _distinctive(max(x.rpartition("@")[0], y.rpartition("@")[0], key=lambda local: local.count(".")), a, b)
        if local_key(one) in common:
            # Maria Silva's maria.silva is worth a look between two who have it, and nothing among five.
            bits = bits - 8.0 if bits > 8 else 0.0
        return bits, "the part before the @ is the same" if bits >= 4 else ""
    return NOTHING


# Enough by itself: whoever gives another's address is worth a look, either way. (Where the owner wrote first, ingest asks at once.)
GIVEN = 24.0


def _merely_given(value: str, a: Person, b: Person) -> bool:
    return (value in a.proven) is not (value in b.proven)


def _addresses(a: Person, b: Person, common: Collection[str]) -> Evidence:
    return max((_address(x, y, a, b, common) for x in a.emails for y in b.emails), default=NOTHING)


# --- numbers ---


def _variants(number: str) -> str:
    """What a number may have been before its country's plan changed, or as another network writes it; the number itself elsewhere.

    Argentina: 54 9 is a mobile, and without the 9 it may be another subscriber's. Ivory Coast: since 2021 ten digits, the old eight
    behind 01, 05 or 07. Neither is certain, so neither is one key.
    """
    if number.startswith("+549") and len(number) == 14:
        return "+54" + number[4:]
    if number.startswith(("+22501", "+22505", "+22507")) and len(number) == 14:
        return "+225" + number[6:]
    return number


def _phone(x: str, y: str, a: Person, b: Person) -> Evidence:
    if x == y and _merely_given(x, a, b):
        return GIVEN, f"one gave {x}, which the other has proved"
    if x == y:
        return 14.0, "the same number"  # less than a mail address: a family has one, and a surname
    (one, _, desk), (other, _, other_desk) = x.partition(";"), y.partition(";")
    if one == other:
        return (0.0, "") if desk and other_desk else (3.0, "one number, with and without an extension")
    if _variants(one) == _variants(other):
        return 18.0, "the same number, written in two ways of its country"
    if (x in a.proven and y in b.proven) or len(one) < 9:
        return NOTHING  # two numbers that somebody wrote from are two numbers, whatever they look like
    if OSA.distance(one, other, score_cutoff=1) == 1:
        return 11.0, "the numbers differ in one digit" if len(one) == len(other) else "one number lacks a digit of the other"
    return NOTHING


def _phones(a: Person, b: Person) -> Evidence:
    return max((_phone(x, y, a, b) for x in a.phones for y in b.phones), default=NOTHING)


def _numbers(a: Person, b: Person) -> Iterator[Evidence]:
    for name in a.numbers.keys() & b.numbers.keys():
        one, other, said = a.numbers[name], b.numbers[name], name.replace("_", " ")
        if one == other:
            yield 22.0, f"the same {said}"
        elif len(one) >= 6 and OSA.distance(one, other, score_cutoff=1) == 1:
            yield 8.0, f"{said}s that differ in one place"
        # Another number speaks against nothing: who was registered twice was given two.


# --- what is on record ---


def birth(value: str) -> str:
    """A date of birth as YYYYMMDD; empty where it is none, or one that stands for "unknown"."""
    if match := re.fullmatch(r"\s*([0-9]{4})[-/.]?([0-9]{2})[-/.]?([0-9]{2})(?:[T ].*)?\s*", value):
        year, month, day = match.groups()
    elif match := re.fullmatch(r"\s*([0-9]{1,2})[-/.]([0-9]{1,2})[-/.]([0-9]{4})\s*", value):
        day, month, year = match.groups()
        if int(month) > 12 >= int(day):
            day, month = month, day
    else:
        return ""
    found = f"{year}{int(month):02}{int(day):02}"
    return "" if found in _PLACEHOLDER_BIRTHS else found


def _births(one: str, other: str) -> Evidence:
    if one == other:
        return 13.0, "same date of birth"
    slips = sum(x != y for x, y in zip(one, other, strict=True))
    if slips == 1 or OSA.distance(one, other, score_cutoff=1) == 1 or one == other[:4] + other[6:] + other[4:6]:
        return 7.0, "dates of birth that differ in one place"
    return (-2.0, "other dates of birth") if slips == 2 else (-6.0, "other dates of birth")


def _text(one: str, other: str, same: float, similar: float, apart: float, said: str) -> Evidence:
    if one == other:
        return same, f"same {said}"
    if min(len(one), len(other)) >= 3 and fuzz.ratio(one, other, score_cutoff=80) > 0:
        return similar, f"similar {said}"
    return apart, f"another {said}"


MOST_OF_A_HOME = 13.0  # bits: street, postcode and town follow from each other, and a family shares them all


def _records(a: Person, b: Person) -> Iterator[Evidence]:
    x, y = a.fields, b.fields
    shared = x.keys() & y.keys()
    if "born" in shared:
        yield _births(x["born"], y["born"])
    if "company" in shared:
        yield _text(x["company"], y["company"], 6.0, 4.0, 0.0, "company")
    home = []
    if "postcode" in shared:
        if OSA.distance(x["postcode"], y["postcode"], score_cutoff=1) == 1:
            home.append((3.5, "similar postcode"))
        else:
            home.append(_text(x["postcode"], y["postcode"], 6.0, -1.0, -1.0, "postcode"))
    if "street" in shared:
        home.append(_text(x["street"], y["street"], 7.0, 5.0, -1.5, "street"))
    if "house" in shared:
        bits = 2.0 if x["house"] == y["house"] else -0.5
        home.append((bits, ""))
    if "place" in shared:
        home.append((_text(x["place"], y["place"], 4.0, 3.0, -0.5, "")[0], ""))
    if "city" in shared:
        home.append(_text(x["city"], y["city"], 3.0, 2.5, -1.0, "town"))
    if home:
        bits = sum(weight for weight, _ in home)
        said = [text for weight, text in sorted(home, reverse=True) if text and weight > 0]
        if bits > 0:
            yield min(bits, MOST_OF_A_HOME), " and ".join(said[:2])
        else:
            yield bits, "another postal address" if bits <= -3 else ""


# --- whom to compare ---


def keys(person: Person) -> frozenset[str]:
    """What people must share to be worth comparing, so that each is compared with a few and not with everybody.

    Each key stands for evidence that could reach the bar; a name only together with something else. A key that many hold finds
    nobody in particular: the caller leaves it out.
    """
    # Cut short: an index takes no key of any length, and a longer one tells no more.
    return frozenset(key[:LONGEST_KEY] for key in _keys(person))


def _keys(person: Person) -> Iterator[str]:
    known = person.fields
    full = {"".join(sorted({sound(name[0]), sound(name[-1])})) for name in person.called if len(name) > 1}
    each = {sound(word) for name in person.called for word in name if len(word) > 1}
    for address in person.emails:
        local, domain, _ = mailbox(address)
        if is_role(local):
            continue
        yield f"mail:{local}@{domain}"
        if len(local) >= 5:
            yield local_key(local)
        for name in full:
            yield f"name+mail:{name}:{local[:3]}:{domain}"
            yield f"name+mail:{name}:{local[-3:]}:{domain}"
    for number in person.phones:
        digits = number.partition(";")[0].lstrip("+")
        if len(digits) < 7:
            continue
        yield f"phone:{digits[-8:]}"
        for name in full:
            yield f"name+phone:{name}:{digits[-4:]}"
            yield f"name+phone:{name}:{digits[:7]}-"
    for name, value in person.numbers.items():
        yield f"number:{name}:{value}"
    born = known.get("born", "")
    if born:
        yield f"born:{born}"
        for name in full:
            yield f"name+born:{name}:{born[:4]}"
            yield f"name+born:{name}:{born[4:]}"
    if "company" in known:
        for name in full:
            yield f"name+company:{name}:{known['company']}"
    yield from _home_keys(known, full, each)


def _home_keys(known: Mapping[str, str], full: Iterable[str], each: Iterable[str]) -> Iterator[str]:
    street, postcode, city = known.get("street", ""), known.get("postcode", ""), known.get("city", "")
    for word in each:
        if postcode:
            yield f"word+postcode:{word}:{postcode}"
        if street:
            yield f"word+street:{word}:{street[:6]}"
    # Beginnings, since a slip is likelier further on.
    if street and postcode:
        yield f"home:{street[:6]}:{postcode}"
    if street and city:
        yield f"home:{street[:6]}:{known.get('house', '')}:{city[:4]}"
    if city:
        for name in full:
            yield f"name+town:{name}:{city[:4]}"
