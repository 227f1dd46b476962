"""Customers as rows of a table: reading a CSV file as spreadsheets and other products write them, and writing one that does no harm.

Columns: `email`, `phone`, `external_id`, `wa_user_id` (each also as email2, email3 ..., and with several values in a cell, parted by
semicolons), `site` (of the ids in `external_id`; or one column a site, `external_id:shop`), `name`; any other column is an attribute.
Columns that begin with `hub:` are what an export tells beside, and are not read.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.customers.recording import KINDS, MOST_ATTRIBUTES, NAME, Given

OURS = "hub:"
DELIMITERS = ",;\t"
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_COLUMN = re.compile(r"(email|phone|wa_user_id|external_id)(?:[ _]?[0-9]{1,2})?(?::(.+))?")
_SEVERAL = re.compile(r";(?!ext=)")  # an extension is part of its number

# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection", with the full-width forms some accept). An apostrophe
# before it makes it text; one that was there before is told apart by being doubled.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
# A phone number must begin with its plus sign to be one anywhere else, and digits alone compute nothing.
_NUMBERS = re.compile(r"\+[0-9]+(;ext=[0-9]+)?(;\+[0-9]+(;ext=[0-9]+)?)*")


class BadFile(Exception):
    """The file cannot be read as a table of customers; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What stands where in a row. `kinds` are (position, kind, site); attributes (position, name)."""

    width: int
    kinds: tuple[tuple[int, str, str], ...]
    site: int | None
    name: int | None
    attributes: tuple[tuple[int, str], ...]


def columns(header: Sequence[str]) -> Columns:
    """What a header names. Raises BadFile."""
    kinds: list[tuple[int, str, str]] = []
    attributes: list[tuple[int, str]] = []
    single: dict[str, int] = {}
    seen: set[str] = set()
    for at, cell in enumerate(header):
        name = plain(cell).strip()
        folded = name.lower()
        if not name:
            raise BadFile(f"line 1: column {at + 1} has no name. Name it, or remove it.")
        if folded in seen:
            raise BadFile(f"line 1: there are two columns named {name}. Number them (email, email2), or remove one.")
        seen.add(folded)
        found = _COLUMN.fullmatch(name) or _COLUMN.fullmatch(folded)
        if folded.startswith(OURS):
            continue
        if found and (not found[2] or found[1] == "external_id"):
            kinds.append((at, found[1], (found[2] or "").strip()))
        elif folded in ("site", NAME):
            single[folded] = at
        else:
            attributes.append((at, name))
    if not kinds:
        wanted = ", ".join(sorted(KINDS))
        raise BadFile(f"line 1: no column says who somebody is. It takes one of: {wanted}. Found: {', '.join(header)[:300]}.")
    if len(attributes) > MOST_ATTRIBUTES:
        raise BadFile(f"line 1: {len(attributes)} attributes; at most {MOST_ATTRIBUTES} are kept of one person.")
    return Columns(len(header), tuple(kinds), single.get("site"), single.get(NAME), tuple(attributes))


def given(known: Columns, cells: Sequence[str], site: str) -> Given:
    """A row's cells as what they tell. `site`: of account ids where no column says so. Raises BadFile where cells are missing or over."""
    if len(cells) != known.width:
        raise BadFile(f"{len(cells)} cells where the header has {known.width}. Is a quote or a separator missing?")
    read = [plain(cell) for cell in cells]
    values: dict[str, list[str]] = {}
    accounts: list[tuple[str, str]] = []
    told = {kind for _, kind, _ in known.kinds}
    of = (read[known.site].strip() if known.site is not None else "") or site
    for at, kind, own_site in known.kinds:
        for value in _SEVERAL.split(read[at]):
            if kind == "external_id":
                accounts.append((own_site or of, value))
            else:
                values.setdefault(kind, []).append(value)

    def of_kind(kind: str) -> tuple[str, ...] | None:
        return tuple(values[kind]) if kind in told else None

    return Given(
        tuple(accounts) if "external_id" in told else None,
        of_kind("wa_user_id"),
        of_kind("email"),
        of_kind("phone"),
        read[known.name] if known.name is not None else None,
        tuple((name, read[at]) for at, name in known.attributes),
    )


def rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line it begins in, cells) of every row that is not empty, the header first. Raises BadFile and OSError."""
    encoding = _encoding(path)
    delimiter = _delimiter(path, encoding)
    with path.open(encoding=encoding, newline="") as file:
        # Strict: a quote that is never closed would swallow the rest of the file as one cell.
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        line = 1
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield line, cells
                line = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise _not_utf8(path, encoding) from error
        except csv.Error as error:
            raise BadFile(f"line {line}: {error}. Is a quote opened in this line and not closed, or not doubled?") from error


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        begin = file.read(3)
    return next((name for mark, name in _BOMS if begin.startswith(mark)), "utf-8")


def _delimiter(path: Path, encoding: str) -> str:
    """The separator by which the header names the most columns we know."""

    def known(delimiter: str) -> tuple[int, int]:
        with path.open(encoding=encoding, newline="") as file:
            try:
                header = next(csv.reader(file, delimiter=delimiter), [])
            except csv.Error:
                return 0, 0
            except UnicodeDecodeError as error:
                raise _not_utf8(path, encoding) from error
        names = [plain(cell).strip().lower() for cell in header]
        return sum(bool(_COLUMN.fullmatch(name)) or name in ("site", NAME) for name in names), len(header)

    return max(DELIMITERS, key=known)


def _not_utf8(path: Path, encoding: str) -> BadFile:
    if encoding == "utf-16":
        return BadFile("It begins like UTF-16 and is not. Save it as UTF-8.")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                meant = line[max(0, error.start - 15) : error.start + 15].decode("cp1252", "replace").strip()
                return BadFile(
                    f"line {number}: this is not UTF-8. As Windows-1252 or Latin-1 it would read {meant!r}: if that is right, save "
                    "the file as UTF-8 (in a spreadsheet: CSV UTF-8; else `iconv -f WINDOWS-1252 -t UTF-8`)."
                )
    return BadFile("This is not UTF-8. Save the file as UTF-8.")


def safe(cell: str) -> str:
    """A cell that no spreadsheet runs as a formula; `plain` gives the value back."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBERS.fullmatch(cell) else cell


def plain(cell: str) -> str:
    """The value of a cell without the apostrophe that kept a spreadsheet from running it."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def line(cells: Sequence[str]) -> str:
    """One line of a CSV file (RFC 4180), every cell made safe."""
    out = io.StringIO()
    csv.writer(out).writerow([safe(cell) for cell in cells])
    return out.getvalue()
