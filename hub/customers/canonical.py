"""Canonical identifiers: one spelling for one address, so that equal means the same mailbox, number or account.

Where a rule is not certain the value stays as it is: two spellings of one person cost a suggestion, one spelling of two
people costs somebody's history. What is only likely is a suggestion key, which never joins anybody.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from typing import NamedTuple

import idna
import phonenumbers
from phonenumbers import CountryCodeSource, PhoneNumber, ValidationResult

LONGEST = 512  # characters; RFC 5321 allows a mailbox 320

# Placeholders that software sends where it knows nothing; tied to a person they would join everybody.
BLOCKED = re.compile(r"[0-]*|-1|null|none|undefined|anonymous|unknown|invalid|n/a", re.IGNORECASE)
# Control characters, and halves of surrogate pairs, which no database stores.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NOT_IN_ADDRESS = re.compile(rf"[\s<>]|{_UNUSABLE.pattern}")
_ASCII_DOMAIN = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f.:]+\]")


# --- Phone numbers -------------------------------------------------------------------------------------------------------


@cache
def _plan(country_code: int) -> tuple[re.Pattern[str] | None, frozenset[int]]:
    """What precedes a country's national numbers when dialled at home, and how many digits they may have (none: no such country)."""
    region = phonenumbers.region_code_for_country_code(country_code)
    if region == phonenumbers.phonenumberutil.UNKNOWN_REGION:
        return None, frozenset()
    metadata = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(country_code, region)
    if metadata is None or metadata.general_desc is None:
        return None, frozenset()
    prefix = metadata.national_prefix_for_parsing
    return re.compile(prefix) if prefix else None, frozenset(metadata.general_desc.possible_length)


_E164 = re.compile(r"\+([1-9][0-9]{6,14})")


def _unambiguous(value: str) -> bool:
    """Whether a full parse would give this very number back: E.164 as providers write it, with nothing in it that could be a trunk prefix.

    Ten times cheaper than parsing, for nearly every number there is; whatever is not certain here is parsed.
    """
    match = _E164.fullmatch(value)
    if match is None:
        return False
    for size in (1, 2, 3):
        if int(value[1 : 1 + size]) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            prefix, lengths = _plan(int(value[1 : 1 + size]))
            national = value[1 + size :]
            return len(national) in lengths and national[0] != "0" and (prefix is None or prefix.match(national) is None)
    return False


# Brazil put a 9 before every mobile number between 2012 and 2016 (Anatel); WhatsApp accounts older than that,
# outside the area codes that came first, are still delivered without it. Only mobile numbers started 6 to 9: a landline (2 to 5)
# with a 9 before it is somebody else's mobile. Area codes: Anatel's "códigos nacionais", all 67; 80 (of 0800) is none.
_OLD_BRAZILIAN_MOBILE = re.compile(r"\+55(1[1-9]|2[12478]|3[1-578]|4[1-9]|5[1345]|6[1-9]|7[134579]|8[1-9]|9[1-9])([6-9][0-9]{7})")
# Mexico dropped the 1 between country code and mobile number in August 2019 (IFT); WhatsApp ids keep it. No national number starts 0 or 1.
_OLD_MEXICAN_MOBILE = re.compile(r"\+521([2-9][0-9]{9})")
# Countries that lengthened every number of theirs: libphonenumber calls the old form too short, but an account registered before
# may still be known by it. It stays as it is delivered: which new number it became is a suggestion (below), never certain.
_BEFORE_THE_CHANGE = re.compile(r"\+(225|229)[0-9]{8}")


def _of_today(number: str) -> str:
    """An E.164 number as it is dialled now, where the rule is certain. Nothing is done to Argentina: 54 and 549 may be two subscribers."""
    if number.startswith("+55"):
        old = _OLD_BRAZILIAN_MOBILE.fullmatch(number)
        return f"+55{old[1]}9{old[2]}" if old else number
    old = _OLD_MEXICAN_MOBILE.fullmatch(number)
    return f"+52{old[1]}" if old else number


# A country code without its sign, as WhatsApp's ids are; nothing but digits, for "(202) 555-0123" names no country, and with a
# plus before it would be somebody in Egypt.
_DIGITS = re.compile(r"[0-9]+(;ext=[0-9]+)?")


@lru_cache(maxsize=65_536)
def phone(value: str, region: str = "") -> str | None:
    """E.164, with `;ext=` kept as part of the key (two desks behind one number are two people); None if no number at all.

    Impossible numbers are refused, merely unassigned ones are not: number plans change faster than any table. `region` (ISO 3166,
    two letters) is where a number without a country code is dialled, for what a person typed or a record holds; what a
    channel delivers has its country code always, so no region may be given for it.
    """
    written = value.strip()
    if region and written[:1] not in ("+", "\uff0b"):
        return _dialled(written, region)
    if _DIGITS.fullmatch(written):
        written = "+" + written
    if _unambiguous(written):
        return _of_today(written)
    number = _parse(written, None)
    return None if number is None else _spell(number)


def _parse(written: str, region: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(written, region, keep_raw_input=True)
    except phonenumbers.NumberParseException:
        return None


def _spell(number: PhoneNumber) -> str | None:
    """The canonical form of a parsed number, or None if there can be none like it."""
    if not number.national_number:
        return None
    canonical = str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
    today = _of_today(canonical)
    if number.country_code_source == CountryCodeSource.FROM_DEFAULT_COUNTRY:
        # The rules about a written country code do not make a number of what is none yet.
        possible = _complete_at_home(number)
    else:
        possible = today != canonical or phonenumbers.is_possible_number(number) or bool(_BEFORE_THE_CHANGE.fullmatch(canonical))
    if not possible or not (_unambiguous(today) or _is_its_own_form(today)):
        return None
    return f"{today};ext={number.extension}" if number.extension else today


def _is_its_own_form(canonical: str) -> bool:
    """Whether the form parses to itself: a second trunk zero would be taken off a second time, and the key would have two spellings."""
    number = _parse(canonical, None)
    return number is not None and canonical == phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _complete_at_home(number: PhoneNumber) -> bool:
    """Whether a number dialled at home names one subscriber of the whole country: 555-0123 is somebody else in each town."""
    kind = phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE
    if phonenumbers.is_possible_number_for_type_with_reason(number, kind) == ValidationResult.IS_POSSIBLE:
        return True
    # Brazil's local numbers have as many digits as its 4004 numbers: what is no line's length must be a service that exists.
    return bool(phonenumbers.is_valid_number(number))


_ZERO_ZERO = re.compile(r"[^\w+]*0[^\w+]*0")


def _dialled(written: str, region: str) -> str | None:
    """A number without a plus sign, as somebody in this region would dial it.

    Digits that are too long at home are refused, not taken for a country code: a digit too many in a New York number would
    be somebody in Morocco.
    """
    number = _parse(written, region.upper())
    zeros = _ZERO_ZERO.match(written)
    if zeros is None:
        return None if number is None else _spell(number)
    # `00` is the plus sign of most of the world, and people type it everywhere; libphonenumber makes +1 0044 7911... of it in the
    # United States. In some countries what follows it is a carrier (0041 is one in Brazil, and Switzerland). One reading, or none.
    readings = set()
    if number is not None and (
        number.country_code_source == CountryCodeSource.FROM_NUMBER_WITH_IDD or phonenumbers.is_valid_number(number)
    ):
        readings.add(_spell(number))
    abroad = _parse("+" + written[zeros.end() :], None)
    if abroad is not None and phonenumbers.is_possible_number_with_reason(abroad) == ValidationResult.IS_POSSIBLE:
        readings.add(_spell(abroad))
    readings.discard(None)
    return readings.pop() if len(readings) == 1 else None


# --- E-mail --------------------------------------------------------------------------------------------------------------

# The one provider whose rules are certain and the same for all its users: dots and whatever follows a plus sign are not looked at
# (support.google.com/mail/answer/7436150), and both domains are one. Firms and schools hosted by Google are another matter (same page).
_GMAIL = frozenset({"gmail.com", "googlemail.com"})
_GMAIL_NAME = re.compile(r"[a-z0-9]+")


@lru_cache(maxsize=65_536)
def email(value: str) -> str | None:
    """NFC, lower case, IDNA domain, Gmail's one name for its many spellings; None if it is no address.

    A key, not an address to write to: answers go to the address as it was delivered.
    """
    local, _, domain = unicodedata.normalize("NFC", value.strip()).rpartition("@")
    if not local or _NOT_IN_ADDRESS.search(local):
        return None
    domain = domain.lower().removesuffix(".")
    if not domain.isascii():
        try:
            # UTS 46 without the transitional rules: the `idna` codec of the standard library (IDNA 2003) makes one domain
            # of fa\u00df.de and fass.de, which are two.
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError:
            return None
    if not _ASCII_DOMAIN.fullmatch(domain) or ".." in domain:
        return None
    local = unicodedata.normalize("NFC", local.lower())
    if domain in _GMAIL:
        name = local.partition("+")[0].replace(".", "")
        # Whatever is no name Google gives out (letters, digits and dots) is left alone: it equals only itself.
        local, domain = (name if _GMAIL_NAME.fullmatch(name) else local), "gmail.com"
    return f"{local}@{domain}"


# --- The rest ------------------------------------------------------------------------------------------------------------


def exact(value: str) -> str | None:
    """An opaque id, taken letter for letter; None for a placeholder."""
    return None if not value.strip() or BLOCKED.fullmatch(value.strip()) or _UNUSABLE.search(value) else value


CANONICAL: dict[str, Callable[[str], str | None]] = {
    "email": email,
    "wa_user_id": exact,
    "user_id": exact,
    "device": exact,
    "sender_word": exact,  # a short code or a word as an SMS sender
}


def canonical(kind: str, value: str, region: str = "") -> str | None:
    """The canonical value of an identifier, or None where it cannot be one. `region`: see `phone`; other kinds have none."""
    if len(value) > LONGEST:
        return None
    if kind == "phone":
        return phone(value, region) if region and value[:1] != "+" else phone(value)
    rule = CANONICAL.get(kind)
    return rule(value) if rule else None


# --- What is only likely -------------------------------------------------------------------------------------------------


class Provider(NamedTuple):
    """Which addresses of a mail provider may be one mailbox. `home` is the domain its other domains are written as."""

    home: str
    plus: bool  # whatever follows a plus sign in the local part reaches the same mailbox
    ignored: str = ""  # characters of the local part that make no difference


# Never certain enough to join: an alias can have gone to another person, and two of the domains can be two accounts. Dots stay
# everywhere (they tell people apart at live.com), and no plus sign is cut at a domain that is not listed.
_APPLE = Provider("icloud.com", plus=True)
_PROTON = Provider("proton.me", plus=True, ignored=".-_")
_YANDEX = Provider("yandex.ru", plus=False)
_MICROSOFT = """
    outlook.com hotmail.com live.com msn.com windowslive.com outlook.com.br outlook.de outlook.es outlook.fr outlook.it outlook.pt
    hotmail.co.uk hotmail.com.br hotmail.de hotmail.es hotmail.fr hotmail.it hotmail.nl
    live.be live.ca live.co.uk live.com.mx live.com.pt live.de live.fr live.it live.nl
"""
PROVIDERS: dict[str, Provider] = {
    # "About your @icloud.com, @me.com, and @mac.com email addresses": an account may have all three (support.apple.com/118230).
    # For the plus sign no page of Apple's is known to us, only users who say that such mail arrives.
    "icloud.com": _APPLE,
    "me.com": _APPLE,
    "mac.com": _APPLE,
    # Plus addressing (learn.microsoft.com/exchange/recipients-in-exchange-online/plus-addressing-in-exchange-online; at Outlook.com
    # since 2013). The domains are not one: ada@hotmail.com and ada@outlook.com are two accounts.
    **{domain: Provider(domain, plus=True) for domain in _MICROSOFT.split()},
    # "Types of email addresses and aliases": + aliases, and one name at several domains (proton.me/support/addresses-and-aliases);
    # dots, hyphens and underscores are no difference (removeEmailAlias in Proton's own WebClients).
    "proton.me": _PROTON,
    "protonmail.com": _PROTON,
    "protonmail.ch": _PROTON,
    "pm.me": _PROTON,
    # "Addresses using your username on all Yandex domains are linked to you" (yandex.com/support/id/authorization/email.html).
    "yandex.ru": _YANDEX,
    "ya.ru": _YANDEX,
    "yandex.com": _YANDEX,
    "yandex.by": _YANDEX,
    "yandex.kz": _YANDEX,
    "yandex.ua": _YANDEX,
    # "Plus addressing and subdomain addressing" (fastmail.help/hc/en-us/articles/360060591053).
    "fastmail.com": Provider("fastmail.com", plus=True),
    "fastmail.fm": Provider("fastmail.fm", plus=True),
}

_ARGENTINE = re.compile(r"\+549?([1-9][0-9]{9})")
# What an old eight-digit number may have become, by its operator: 31 January 2021 in Ivory Coast (ARTCI), 30 November 2024 in
# Benin (ARCEP Bénin).
_LENGTHENED = {"+225": ("01", "05", "07", "21", "25", "27"), "+229": ("01",)}


@lru_cache(maxsize=65_536)
def suggestion_keys(kind: str, value: str) -> tuple[str, ...]:
    """Looser keys of a canonical value, each `kind~key`: two values that share one may be the same person, which joins nobody.

    Empty where nothing looser is known than the value itself.
    """
    if kind == "phone":
        return tuple(f"phone~{number}" for number in _numbers_it_may_be(value))
    if kind == "email":
        local, _, domain = value.rpartition("@")
        provider = PROVIDERS.get(domain)
        if provider is None:
            return ()
        name = local.partition("+")[0] if provider.plus else local
        name = name.translate({ord(character): None for character in provider.ignored})
        return (f"email~{name}@{provider.home}",) if name else ()
    return ()


def _numbers_it_may_be(value: str) -> tuple[str, ...]:
    if match := _ARGENTINE.fullmatch(value):
        # A mobile number abroad has the 9 and at home has not; but 54 and ten digits is a landline too.
        return (f"+549{match[1]}",)
    country, national = value[:4], value[4:]
    prefixes = _LENGTHENED.get(country)
    if prefixes is None or not national.isdigit():
        return ()
    if len(national) == 8:
        return tuple(f"{country}{prefix}{national}" for prefix in prefixes)
    return (value,) if len(national) == 10 and national.startswith(prefixes) else ()
