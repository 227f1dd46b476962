"""The words by which people stop what they are sent by SMS, take it up again, or ask for help: as the whole message only.

Only words that somebody documents stand here. In Spanish, Portuguese and German no carrier's list we know of has a word of its own:
people there are told to answer STOP, which is heeded everywhere, and anything else they write is free text, flagged for an agent
(`hub.conversations.stopping`). HELP and INFO open a ticket like any other message: whoever asks for help at a support desk wants an
answer, and what the law asks of an automatic one (who we are, how to stop) Twilio and Telnyx send of themselves.
"""

from __future__ import annotations

import unicodedata
from typing import Literal

Meaning = Literal["", "out", "in", "help"]

_TWILIO = "https://help.twilio.com/articles/223134027"
_TWILIO_PROXY = "https://www.twilio.com/docs/proxy/opt-out-keywords"
_TELNYX = "https://developers.telnyx.com/docs/messaging/messages/advanced-opt-in-out"
_AWS = "https://docs.aws.amazon.com/sms-voice/latest/userguide/opt-out-list-keywords.html"
_FCC = "https://www.ecfr.gov/current/title-47/section-64.1200"  # (a)(10), in force since 2025-04-11

# A word -> (what it means, who documents it). Written as `folded` leaves them: capitals without accents, hyphens as spaces.
WORDS: dict[str, tuple[Meaning, str]] = {
    "STOP": ("out", _FCC),
    "QUIT": ("out", _FCC),
    "END": ("out", _FCC),
    "REVOKE": ("out", _FCC),
    "OPT OUT": ("out", _FCC),
    "CANCEL": ("out", _FCC),
    "UNSUBSCRIBE": ("out", _FCC),
    "STOPALL": ("out", _TWILIO),
    "OPTOUT": ("out", _TWILIO),
    "STOP ALL": ("out", _TELNYX),
    "REMOVE": ("out", _AWS),
    "TD": ("out", _AWS),
    # French (Canadian carriers demand ARRET beside STOP)
    "ARRET": ("out", _AWS),
    "ARRETT": ("out", _TWILIO_PROXY),
    "ARRETE": ("out", _TWILIO_PROXY),
    "START": ("in", _TWILIO),
    "UNSTOP": ("in", _TWILIO),
    "HELP": ("help", _TWILIO),
    "INFO": ("help", _TWILIO),
}

_AROUND = " \t\r\n.!,;:\u2026\"'\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb()*"
_LONGEST = 40  # characters; nothing longer is one of these words


def folded(text: str) -> str:
    """A short text as the table has it: in capitals, without accents, without punctuation and quotes around it. A question mark
    stays, for "Stop?" asks something."""
    bare = unicodedata.normalize("NFKD", text.strip(_AROUND)).upper()
    letters = "".join(letter for letter in bare if not unicodedata.combining(letter))
    return " ".join(letters.replace("-", " ").replace("\u2011", " ").split())


def meaning(text: str, *, yes_starts: bool = False) -> Meaning:
    """What a whole message means, if it is one of these words. With `yes_starts` YES takes messages up again: at Twilio it lifts the
    block, elsewhere it is an answer to some question. Pure."""
    if len(text) > _LONGEST:
        return ""
    word = folded(text)
    if word == "YES" and yes_starts:
        return "in"
    return WORDS[word][0] if word in WORDS else ""


def opts(text: str, *, yes_starts: bool = False) -> Literal["", "out", "in"]:
    """The same for what is sent from now on: HELP changes nothing. Pure."""
    found = meaning(text, yes_starts=yes_starts)
    return "" if found == "help" else found
