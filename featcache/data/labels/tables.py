"""Rows of a label table as text, whatever saved it: any separator, encoding, lines before the heading.

Stricter reading of the tables that this package writes itself is in `readers/video/table_text.py`; tables of
annotation programs have columns that move, lines in front and ends of rows that are missing.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from featcache.data.readers.video.table_text import ENCODINGS, MOST_BYTES, SAID, SEPARATORS, decode_text
from featcache.errors import DataError
from featcache.system.files import read_regular

Row = tuple[int, tuple[str, ...]]
"""Number of a row in the file, from 1, and its cells without space around them."""


def read_text(path: Path) -> tuple[str, str]:
    """The text of a label file, and the name of its encoding.

    Raises:
        DataError: it cannot be read, or is no text.
    """
    try:
        content = read_regular(path, limit=MOST_BYTES)
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror}): give a label file.") from None
    return decode_text(path, content)


def read_rows(path: Path, *, separator: str | None = None) -> tuple[list[Row], str]:
    """All rows that have a cell, and a sentence where the table's form is not the plain one.

    Args:
        path: a file of text.
        separator: what stands between cells; None to find it out.

    Raises:
        DataError: it cannot be read, is no text, or a quote is not closed.
    """
    text, encoding = read_text(path)
    said = SAID.match(text)
    separator = separator or (said[1] if said else separator_of(text))
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as problem:
        raise DataError(f"{path} is not a table ({problem}): every quote needs its other half.") from None
    rows = [(n, tuple(cell.strip() for cell in cells)) for n, cells in enumerate(records, 1)]
    filled = [(n, cells) for n, cells in rows[1 if said else 0 :] if any(cells)]
    plain = encoding in ("utf-8", "utf-8-sig") and separator in ",\t"
    form = "" if plain else f"read as {ENCODINGS[encoding]}, cells between {SEPARATORS[separator]}."
    return filled, form


def separator_of(text: str) -> str:
    """The one of comma, semicolon and tab that most cells of the first lines are between."""
    head = text[:20_000].splitlines()[:60]
    return max(SEPARATORS, key=lambda separator: sum(line.count(separator) for line in head))


class Columns:
    """Cells of a row by the names that a format has for a column."""

    def __init__(self, heading: Sequence[str]) -> None:
        self.names = tuple(heading)
        self._place: dict[str, int] = {}
        for place, name in enumerate(heading):
            self._place.setdefault(name.casefold(), place)

    def find(self, *names: str) -> str | None:
        """The first of `names` that the table has, in any case."""
        return next((name for name in names if name.casefold() in self._place), None)

    def cell(self, cells: Sequence[str], *names: str) -> str:
        """What stands in the first of these columns that there is; empty where there is none."""
        name = self.find(*names)
        place = len(cells) if name is None else self._place[name.casefold()]
        return cells[place] if place < len(cells) else ""

    def row(self, cells: Sequence[str]) -> Mapping[str, str]:
        """Name -> cell, of all columns that have a name."""
        return {name: cell for name, cell in zip(self.names, cells, strict=False) if name}
