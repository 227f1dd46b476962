"""Canonical identifiers: one spelling for one address, so that equal means the same mailbox, number or account.

Where a rule is not certain the value stays as it is: two spellings of one person cost a suggestion, one spelling of two
people costs somebody's history. Provider-specific rules come with the identity work.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache

import idna
import phonenumbers

LONGEST = 512  # characters; RFC 5321 allows a mailbox 320

# Placeholders that software sends where it knows nothing; tied to a person they would join everybody.
BLOCKED = re.compile(r"[0-]*|-1|null|none|undefined|anonymous|unknown|invalid|n/a", re.IGNORECASE)
# Control characters, and halves of surrogate pairs, which no database stores.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NOT_IN_ADDRESS = re.compile(rf"[\s<>]|{_UNUSABLE.pattern}")
_ASCII_DOMAIN = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f.:]+\]")


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


@lru_cache(maxsize=65_536)
def phone(value: str) -> str | None:
    """E.164, with `;ext=` kept as part of the key (two desks behind one number are two people); None if no number at all.

    Impossible numbers are refused, merely unassigned ones are not: number plans change faster than any table.
    """
    if _unambiguous(value):
        return value
    digits = value.strip()
    # Providers write the country code always; a form that lost its plus sign must not be read as a national number.
    if not digits.startswith("+"):
        digits = "+" + digits
    try:
        number = phonenumbers.parse(digits, None)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number) or not number.national_number:
        return None
    canonical = str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
    return f"{canonical};ext={number.extension}" if number.extension else canonical


@lru_cache(maxsize=65_536)
def email(value: str) -> str | None:
    """NFC, lower case, IDNA domain; None if it is no address. Dots and plus tags stay: only some providers ignore them."""
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
    return f"{unicodedata.normalize('NFC', local.lower())}@{domain}"


def exact(value: str) -> str | None:
    """An opaque id, taken letter for letter; None for a placeholder."""
    return None if not value.strip() or BLOCKED.fullmatch(value.strip()) or _UNUSABLE.search(value) else value


CANONICAL: dict[str, Callable[[str], str | None]] = {
    "phone": phone,
    "email": email,
    "wa_user_id": exact,
    "user_id": exact,
    "device": exact,
    "sender_word": exact,  # a short code or a word as an SMS sender
}


def canonical(kind: str, value: str) -> str | None:
    """The canonical value of an identifier, or None where it cannot be one."""
    rule = CANONICAL.get(kind)
    return rule(value) if rule and len(value) <= LONGEST else None
