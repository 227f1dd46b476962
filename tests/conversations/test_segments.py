"""Law: a text is counted as the network sends it, what makes it dear is named, and a split text loses no word.

Golden numbers: 3GPP TS 23.038 (160 and 70), TS 23.040 section 9.2.3.24.1 (153 and 67).
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.conversations.segments import Replacement, Segments, count, plain, smart, split

EURO, GRIN, FLAG = "\u20ac", "\U0001f600", "\U0001f1e9\U0001f1ea"

# text -> encoding, units, segments, left in the last
COUNTS = {
    "nothing": ("", "GSM-7", 0, 0, 160),
    "a word": ("Hello", "GSM-7", 5, 1, 155),
    "160 fill one": ("a" * 160, "GSM-7", 160, 1, 0),
    "161 take two": ("a" * 161, "GSM-7", 161, 2, 145),
    "306 fill two": ("a" * 306, "GSM-7", 306, 2, 0),
    "307 take three": ("a" * 307, "GSM-7", 307, 3, 152),
    "accents of the alphabet are free": ("éèùìòÇØøÅåÆæßÉÄÖÑÜäöñüà£¥¿¡§¤@", "GSM-7", 30, 1, 130),
    "Greek capitals are in it": ("ΔΦΓΛΩΠΨΣΘΞ", "GSM-7", 10, 1, 150),
    "line ends too": ("a\r\nb", "GSM-7", 4, 1, 156),
    "the extension table takes two each": ("^{}\\[~]|" + EURO + "\f", "GSM-7", 20, 1, 140),
    "80 euros fill one": (EURO * 80, "GSM-7", 160, 1, 0),
    "81 euros: 76 fit, since none is cut in two": (EURO * 81, "GSM-7", 162, 2, 143),
    "a euro at the seam leaves a place empty": ("a" * 152 + EURO + "a" * 10, "GSM-7", 164, 2, 141),
    "a euro before the seam does not": ("a" * 151 + EURO + "a" * 10, "GSM-7", 163, 2, 143),
    "70 fill one": ("я" * 70, "UCS-2", 70, 1, 0),
    "71 take two": ("я" * 71, "UCS-2", 71, 2, 63),
    "134 fill two": ("я" * 134, "UCS-2", 134, 2, 0),
    "135 take three": ("я" * 135, "UCS-2", 135, 3, 66),
    "one letter makes it all UCS-2": ("a" * 70 + "ł", "UCS-2", 71, 2, 63),
    "an emoji is two units": (GRIN, "UCS-2", 2, 1, 68),
    "35 emojis fill one": (GRIN * 35, "UCS-2", 70, 1, 0),
    "36 emojis: 33 fit, since none is cut in two": (GRIN * 36, "UCS-2", 72, 2, 61),
    "a flag is two emojis": (FLAG, "UCS-2", 4, 1, 66),
    "extension characters are one unit in UCS-2": (EURO + "я", "UCS-2", 2, 1, 68),
    "a small cedilla is not in it, the capital is": ("çÇ", "UCS-2", 2, 1, 68),
    "a backtick is not in it": ("`", "UCS-2", 1, 1, 69),
    "a tab is not in it": ("\t", "UCS-2", 1, 1, 69),
}


@pytest.mark.parametrize(("text", "encoding", "units", "segments", "left"), COUNTS.values(), ids=COUNTS)
def test_count(text: str, encoding: str, units: int, segments: int, left: int) -> None:
    found = count(text)
    assert (found.encoding, found.units, found.segments, found.left_in_last) == (encoding, units, segments, left)


def test_the_alphabet_has_127_places_and_ten_more() -> None:
    one_place = [chr(code) for code in range(0x10000) if count(chr(code)).encoding == "GSM-7" and count(chr(code)).units == 1]
    two_places = [chr(code) for code in range(0x10000) if count(chr(code)).encoding == "GSM-7" and count(chr(code)).units == 2]
    assert (len(one_place), len(two_places)) == (127, 10)


def test_the_culprits_are_named_once_in_their_order() -> None:
    assert count("\u201cz\u0142\u201d \u201cz\u0142\u201d").culprits == ("\u201c", "\u0142", "\u201d")
    assert count("plain").culprits == ()


@given(st.text(max_size=500))
def test_the_sum_is_what_it_was_made_of(text: str) -> None:
    found = count(text)
    assert found.units == sum(count(letter).units if found.encoding == "GSM-7" else len(letter.encode("utf-16-le")) // 2 for letter in text)
    room = 160 if found.encoding == "GSM-7" else 70
    assert (found.segments <= 1) == (found.units <= room)
    assert found.left_in_last >= 0


# --- What is offered ---

OFFERS = {
    "curly quotes": ("\u201cIt\u2019s here\u201d", '"It\'s here"'),
    "dashes and dots": ("Mon\u2013Fri \u2014 soon\u2026", "Mon-Fri - soon..."),
    "unbreakable and odd spaces": ("10\u00a0kg\u202f!\t\u2009", "10 kg !  "),
    "nothing that is seen": ("a\u200bb\ufeff", "ab"),
    "guillemets and a bullet": ("\u00aboui\u00bb \u2022 non", '"oui" - non'),
}


@pytest.mark.parametrize(("text", "better"), OFFERS.values(), ids=OFFERS)
def test_what_people_would_have_typed_is_offered(text: str, better: str) -> None:
    assert plain(text) == better
    assert count(better).encoding == "GSM-7"
    assert [each.found for each in smart(text)] == list(count(text).culprits)


def test_an_offer_names_each_character_and_what_would_stand_there() -> None:
    assert smart("a\u2026\u2019\u2026") == (Replacement("\u2026", "..."), Replacement("\u2019", "'"))


@pytest.mark.parametrize("text", ["", "plain", f"\u201chi\u201d {GRIN}", "\u201c\u0434\u0430\u201d", "garçon\u2019s"])
def test_nothing_is_offered_that_would_not_help(text: str) -> None:
    assert smart(text) == ()
    assert plain(text) == text


@given(st.text(alphabet=st.sampled_from("ab \u2018\u2019\u201c\u2013\u2026\u00a0\u200b\u0142" + GRIN), max_size=60))
def test_an_offer_taken_up_is_in_the_alphabet(text: str) -> None:
    if smart(text):
        assert count(plain(text)).encoding == "GSM-7"
        assert count(plain(text)).segments <= max(count(text).segments, 1) or len(text) < 3


# --- Splitting ---

SPLITS = {
    "it fits": ("Hello there", 11, ["Hello there"]),
    "nothing": (" \n ", 10, []),
    "at a sentence": ("One two three. Four five six.", 21, ["(1/2) One two three.", "(2/2) Four five six."]),
    "at a word": ("alpha beta gamma delta", 18, ["(1/2) alpha beta", "(2/2) gamma delta"]),
    "at a paragraph rather than a sentence": (
        "Dear Ann\nIt is here. Come in and take it soon",
        32,
        ["(1/2) Dear Ann\nIt is here.", "(2/2) Come in and take it soon"],
    ),
    "within a word that fits nowhere": ("a" * 25, 16, ["(1/3) " + "a" * 10, "(2/3) " + "a" * 10, "(3/3) " + "a" * 5]),
    "a question and its quote": ('He said "why?" Then he went.', 21, ['(1/2) He said "why?"', "(2/2) Then he went."]),
    "not between a letter and its accent": (
        "e\u0301" * 6,
        11,
        ["(1/3) " + "e\u0301" * 2, "(2/3) " + "e\u0301" * 2, "(3/3) " + "e\u0301" * 2],
    ),
    "not within a family": (
        "ab\U0001f468\u200d\U0001f469\u200d\U0001f467cdefgh",
        12,
        ["(1/3) ab", "(2/3) \U0001f468\u200d\U0001f469\u200d\U0001f467c", "(3/3) defgh"],
    ),
}


@pytest.mark.parametrize(("text", "limit", "parts"), SPLITS.values(), ids=SPLITS)
def test_split(text: str, limit: int, parts: list[str]) -> None:
    assert split(text, limit) == parts


def test_ten_parts_have_two_digits_and_still_fit() -> None:
    parts = split("word " * 100, 40)
    assert len(parts) > 9
    assert parts[0].startswith(f"(1/{len(parts)}) ")
    assert all(len(part) <= 40 for part in parts)


@pytest.mark.parametrize("limit", [0, 1, 6])
def test_a_limit_without_room_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="no room"):
        split("a" * 30, limit)


@given(st.text(alphabet=st.sampled_from('abcdefgh .!?\n\u2026"\u0301\u200d' + GRIN), max_size=400), st.integers(20, 90))
def test_no_word_is_lost_and_no_part_is_too_long(text: str, limit: int) -> None:
    parts = split(text, limit)
    assert all(0 < len(part) <= limit for part in parts)
    said = [part.partition(") ")[2] for part in parts] if len(parts) > 1 else parts
    assert "".join("".join(said).split()) == "".join(text.split())
    assert [part.partition(")")[0] for part in parts if len(parts) > 1] == [
        f"({n}/{len(parts)}" for n in range(1, len(parts) + 1) if len(parts) > 1
    ]


def test_a_long_answer_is_split_in_a_moment() -> None:
    text = "Lorem ipsum dolor sit amet. " * 4_000
    assert len(split(text, 1_600)) == 72


def test_segments_is_plain_data() -> None:
    assert count("a") == Segments("GSM-7", 1, 1, 159)
