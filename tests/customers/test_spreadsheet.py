"""A table of customers as people and products write it: read for what it says, or refused by the line; and written to do no harm."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from hub.customers.recording import Given
from hub.customers.spreadsheet import BadFile, columns, given, line, plain, rows, safe

HEADER = "email,name,plan\n"
PEOPLE = [(1, ["email", "name", "plan"]), (2, ["ada@example.com", "Ada", "gold"])]

FILES: dict[str, bytes] = {
    "plain": b"email,name,plan\nada@example.com,Ada,gold\n",
    "without a last newline": b"email,name,plan\nada@example.com,Ada,gold",
    "from Windows": b"email,name,plan\r\nada@example.com,Ada,gold\r\n",
    "from an old Mac": b"email,name,plan\rada@example.com,Ada,gold\r",
    "with a byte order mark": b"\xef\xbb\xbfemail,name,plan\nada@example.com,Ada,gold\n",
    "UTF-16, as Excel's Unicode text": "email\tname\tplan\r\nada@example.com\tAda\tgold\r\n".encode("utf-16"),
    "semicolons, as Excel writes in much of Europe": b"email;name;plan\nada@example.com;Ada;gold\n",
    "tabs": b"email\tname\tplan\nada@example.com\tAda\tgold\n",
    "every cell quoted": b'"email","name","plan"\n"ada@example.com","Ada","gold"\n',
    "empty lines at the end": b"email,name,plan\nada@example.com,Ada,gold\n\n,,\n  ,,\n",
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_is_read_as_it_comes(case: str, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(FILES[case])
    assert list(rows(path)) == PEOPLE


def test_a_line_break_in_a_cell_is_no_new_row_and_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text('email,note\na@example.com,"one\ntwo, and ""three"""\nb@example.com,x\n')
    assert list(rows(path))[1:] == [(2, ["a@example.com", 'one\ntwo, and "three"']), (4, ["b@example.com", "x"])]


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "Latin-1": ("email,name\na@example.com,Ann\nj@example.com,José\n".encode("latin-1"), "line 3: this is not UTF-8"),
    "and what it would say": ("email,name\nj@example.com,José\n".encode("latin-1"), "it would read 'example.com,José'"),
    "Latin-1 in the header": ("email,prénom\n".encode("latin-1"), "line 1: this is not UTF-8"),
    "late in a long file": (HEADER.encode() + b"a@example.com,A,b\n" * 5_000 + b"\xe9,,\n", "line 5002: this is not UTF-8"),
    "a quote that is never closed": (b'email,name\na@example.com,Ann\nb@example.com,"Ben\nc@example.com,Cy\n', "line 3: "),
    "a quote amid a cell": (b'email,name\na@example.com,"Ann" B\n', "line 2: "),
    "not what it begins like": (b"\xff\xfee", "UTF-16"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_named_by_its_line(case: str, tmp_path: Path) -> None:
    content, text = UNREADABLE[case]
    path = tmp_path / "people.csv"
    path.write_bytes(content)
    with pytest.raises(BadFile) as caught:
        list(rows(path))
    assert text in str(caught.value)


GIVEN: dict[str, tuple[list[str], list[str], Given]] = {
    "what a column does not tell of is not told": (["email"], ["a@example.com"], Given(emails=("a@example.com",))),
    "several of a kind, by column and by cell": (
        ["Email", "email2", "E_mail", "phone"],
        ["a@example.com;b@example.com", "c@example.com", "x", "+12025550123;ext=5;+12025550124"],
        Given(
            emails=("a@example.com", "b@example.com", "c@example.com"),
            phones=("+12025550123;ext=5", "+12025550124"),
            attributes=(("E_mail", "x"),),
        ),
    ),
    "the site by its column": (["external_id", "site"], ["u1", "outlet"], Given((("outlet", "u1"),))),
    "the site by the command": (["external_id", "site"], ["u1", ""], Given((("shop", "u1"),))),
    "the site by the column's name": (["external_id:Outlet", "external_id"], ["u1", "u2"], Given((("Outlet", "u1"), ("shop", "u2")))),
    "a name told to be none": (["email", "name"], ["a@example.com", ""], Given(emails=("a@example.com",), name="")),
    "what an export tells beside": (
        ["email", "hub:id", "hub:opt_outs"],
        ["a@example.com", "7", "sms/+1"],
        Given(emails=("a@example.com",)),
    ),
    "a customer_id of theirs is an attribute": (
        ["email", "customer_id"],
        ["a@example.com", "7"],
        Given(emails=("a@example.com",), attributes=(("customer_id", "7"),)),
    ),
    "what kept a spreadsheet from running it": (
        ["phone", "sum"],
        ["'+12025550123", "'=1+1"],
        Given(phones=("+12025550123",), attributes=(("sum", "=1+1"),)),
    ),
}


@pytest.mark.parametrize("case", GIVEN)
def test_a_row_is_what_its_columns_say(case: str) -> None:
    header, cells, told = GIVEN[case]
    assert given(columns(header), cells, "shop") == told


HEADERS: dict[str, tuple[list[str], str]] = {
    "nobody": (["name", "plan"], "no column says who somebody is"),
    "twice": (["email", "plan", "Plan"], "two columns named Plan"),
    "without a name": (["email", " "], "column 2 has no name"),
    "a crowd": (["email", *(f"a{n}" for n in range(101))], "101 attributes"),
    "semicolons in a file of commas": (["email;name"], "no column says who"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_names_nothing_usable_is_refused(case: str) -> None:
    header, text = HEADERS[case]
    with pytest.raises(BadFile) as caught:
        columns(header)
    assert text in str(caught.value)


@pytest.mark.parametrize("cells", [["a@example.com"], ["a@example.com", "b", "c"]], ids=["missing", "over"])
def test_a_row_of_another_width_is_refused(cells: list[str]) -> None:
    with pytest.raises(BadFile, match="cells where the header has 2"):
        given(columns(["email", "plan"]), cells, "")


# cell -> as it is written
SAFE = {
    '=HYPERLINK("http://x")': '\'=HYPERLINK("http://x")',
    "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
    "-1+2": "'-1+2",
    "@SUM(1)": "'@SUM(1)",
    "\t=1": "'\t=1",
    "\r=1": "'\r=1",
    "\uff1d1": "'\uff1d1",
    "'=1": "''=1",
    "'s Gravenhage": "'s Gravenhage",
    "Ada": "Ada",
    "": "",
    # A number keeps its plus sign: without it, it would be another number everywhere else.
    "+12025550123": "+12025550123",
    "+12025550123;ext=5;+442079460000": "+12025550123;ext=5;+442079460000",
    "+12025550123+1": "'+12025550123+1",
    "+1;=1": "'+1;=1",
}


@pytest.mark.parametrize("cell", SAFE)
def test_no_cell_is_run_by_a_spreadsheet(cell: str) -> None:
    assert safe(cell) == SAFE[cell]
    assert plain(safe(cell)) == cell


@drawn(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20), min_size=2, max_size=5))
def test_whatever_is_written_is_read_back(cells: list[str]) -> None:
    (read,) = list(csv.reader(io.StringIO(line(cells), newline=""), strict=True))
    assert [plain(cell) for cell in read] == cells
