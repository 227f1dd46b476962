"""Law: a word that stops is heeded as the whole message, however it is written; in a sentence it is for people to read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.shared.stop_words import WORDS, folded, meaning, opts

MEANINGS = {
    "STOP": "out",
    "stop": "out",
    "  Stop. ": "out",
    "\u201cSTOP\u201d": "out",
    "stop!!": "out",
    "stop all": "out",
    "StopAll": "out",
    "quit": "out",
    "END": "out",
    "revoke": "out",
    "opt out": "out",
    "Opt-Out": "out",
    "optout": "out",
    "cancel": "out",
    "unsubscribe": "out",
    "remove": "out",
    "arrêt": "out",
    "ARRET": "out",
    "arre\u0302t": "out",
    "Arrête": "out",
    "START": "in",
    "unstop": "in",
    "Help": "help",
    "INFO": "help",
    # for people to read
    "": "",
    "   ": "",
    "Stop?": "",
    "please stop": "",
    "stop it now": "",
    "stop stop": "",
    "Non-stop": "",
    "Stop by at five": "",
    "cancel my order": "",
    "the end": "",
    "help me": "",
    "no": "",
    "yes": "",
    "alto": "",  # a Spanish word no carrier we know of lists
    "S T O P": "",
    "STOP\n\nSent from my phone": "",
    "STOP" + "!" * 50: "",
}


@pytest.mark.parametrize(("text", "found"), MEANINGS.items())
def test_meaning(text: str, found: str) -> None:
    assert meaning(text) == found


def test_yes_takes_messages_up_again_only_where_it_does() -> None:
    assert (meaning("Yes!", yes_starts=True), meaning("Yes!")) == ("in", "")
    assert meaning("yes please", yes_starts=True) == ""


def test_help_changes_nothing_of_what_is_sent() -> None:
    assert (opts("HELP"), opts("INFO"), opts("STOP"), opts("START")) == ("", "", "out", "in")


def test_every_word_of_the_table_is_spelt_as_it_is_looked_up_and_has_its_source() -> None:
    for word, (what, source) in WORDS.items():
        assert folded(word.lower()) == word
        assert what in ("out", "in", "help")
        assert source.startswith("https://")


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    assert meaning(text) in ("", "out", "in", "help")
