"""The cells of a table that a spreadsheet, a script or an editor saved as text: all of them, or none.

Spreadsheets save by the country's habit and the menu that was used: commas, semicolons or tabs; UTF-8 with a
mark in front or without, UTF-16, the Windows code page. All of these are recognised, and named where they are
not the plain form (UTF-8, commas). What does not add up is refused with its row.
"""

import csv
import io
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import DataError, few
from featcache.system.files import read_regular

MOST_BYTES = 256 * 2**20
"""Of a table: a million rows take a quarter of it."""

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SAID = re.compile(r'"?sep=([,;\t])"?[,;\t]*(\r\n|\r|\n|$)', re.IGNORECASE)
"""A first line in which Excel says what stands between cells."""

_MARKS = ((BOM_UTF8, "utf-8-sig"), (BOM_UTF16_LE, "utf-16-le"), (BOM_UTF16_BE, "utf-16-be"))
ENCODINGS = {
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8 with a byte order mark",
    "utf-16-le": "UTF-16 LE",
    "utf-16-be": "UTF-16 BE",
    "cp1252": "Windows-1252",
}
_SAVE_AS = "save it as CSV UTF-8"


@dataclass(frozen=True, slots=True)
class Table:
    """The rows below the header, and what the user should know of how the file was read."""

    columns: tuple[str, ...]
    """Their names, without space around them; the last ones may be empty."""
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    """Number of the row in the file, from 1, and its cells, one a column."""
    notes: tuple[str, ...]


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """The table of a text file whose first row names `columns`, in any order and among others.

    Raises:
        DataError: it cannot be read, is not text in a known encoding, lacks a column or has one twice, or a
            row has too many or too few cells; names file and row.
    """
    try:
        content = read_regular(path, limit=MOST_BYTES)
    except OSError as problem:
        raise DataError(
            f"{path} cannot be read ({problem.strerror}): put the list of clips there, or correct `clips` in "
            "the manifest."
        ) from None
    text, encoding = decode_text(path, content)
    separator, before = _separator(text, columns)
    try:
        # Strict: a quote that is never closed is an end that is missing, not a cell.
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as problem:
        raise DataError(
            f"{path} is not a table ({problem}; it was read as {ENCODINGS[encoding]} with "
            f"{SEPARATORS[separator]}): every quote needs its other half; {_SAVE_AS}, whole."
        ) from None
    header = tuple(name.strip() for name in (records[before] if len(records) > before else ()))
    _check_header(path, header, columns, row=before + 1)
    rows = [(row, tuple(cells)) for row, cells in enumerate(records, 1) if row > before + 1]
    filled = [(row, cells) for row, cells in rows if any(cell.strip() for cell in cells)]
    for row, cells in filled:
        _check_cells(path, row, cells, header, separator)
    notes = _notes(path, encoding, separator, sorted({row for row, _ in rows} - {row for row, _ in filled}))
    if filled and not text.endswith(("\n", "\r")):
        notes.append(
            f"{path.name}: no line end after row {filled[-1][0]}: see that nothing is cut off there."
        )
    return Table(header, tuple(filled), tuple(notes))


def decode_text(path: Path, content: bytes) -> tuple[str, str]:
    """The text of a file and its encoding, a key of `ENCODINGS`.

    Raises:
        DataError: it is not text in any of them; names the file.
    """
    marked = [(mark, encoding) for mark, encoding in _MARKS if content.startswith(mark)]
    if marked:
        mark, encoding = marked[0]
        content, encodings = content[len(mark) :], [encoding]
    elif b"\0" in content[:2]:
        # No mark, but the first letter of a name of a column takes two bytes.
        encodings = ["utf-16-be" if content[0] == 0 else "utf-16-le"]
    else:
        encodings = ["utf-8", "cp1252"]
    for encoding in encodings:
        try:
            text = content.decode("utf-8" if encoding == "utf-8-sig" else encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, encoding
    names = " or ".join(ENCODINGS[encoding] for encoding in encodings)
    raise DataError(f"{path} is not a text file in {names}: {_SAVE_AS}.")


def _separator(text: str, columns: Sequence[str]) -> tuple[str, int]:
    """What stands between the cells, and the rows before the header: 1 where Excel says so, as `sep=;`."""
    said = SAID.match(text)
    if said:
        return said[1], 1
    first = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]

    def n_columns(separator: str) -> int:
        names = {name.strip(' "') for name in first.split(separator)}
        return len(names & set(columns))

    before = len(re.match(r"(\r\n|\r|\n)*", text)[0].replace("\r\n", "\n"))  # type: ignore[index]
    return max(SEPARATORS, key=n_columns), before


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str], *, row: int) -> None:
    way_out = f"that row must be {','.join(columns)}, and columns of your own"
    for column in columns:
        if column not in header:
            raise DataError(f"{path}, row {row}: no column {column!r}; {way_out}.")
    seen = set[str]()
    for name in (name.casefold() for name in header if name):
        if name in seen:
            raise DataError(f"{path}, row {row}: two columns are called {name!r}; rename or remove one.")
        seen.add(name)


def _check_cells(path: Path, row: int, cells: Sequence[str], header: Sequence[str], separator: str) -> None:
    where = f"{path}, row {row}"
    if len(cells) != len(header):
        raise DataError(
            f"{where}: {len(cells)} cells, the first row has {len(header)}. Fill it up, or put a cell that "
            f"holds {separator!r} in quotes."
        )
    for name, cell in zip(header, cells, strict=True):
        if not name and cell.strip():
            raise DataError(f"{where}: {cell.strip()[:40]!r} stands in a column without a name; give it one.")


def _notes(path: Path, encoding: str, separator: str, empty: Sequence[int]) -> list[str]:
    notes = []
    if encoding != "utf-8" or separator != ",":
        guessed = " (it is not UTF-8)" if encoding == "cp1252" else ""
        form = f"{ENCODINGS[encoding]}{guessed}, cells between {SEPARATORS[separator]}"
        notes.append(f"{path.name}: read as {form}.")
    if empty:
        rows = "row is" if len(empty) == 1 else "rows are"
        notes.append(f"{path.name}: {len(empty)} empty {rows} left out ({few(empty)}).")
    return notes
