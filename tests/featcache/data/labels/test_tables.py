from pathlib import Path

import pytest

from featcache.data.labels.tables import Columns, read_rows, read_text, separator_of
from featcache.errors import DataError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_rows_are_read_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("video;label\r\n\r\na.mp4; é \r\n".encode(encoding))
    rows, form = read_rows(path)
    assert rows == [(1, ("video", "label")), (3, ("a.mp4", "é"))]
    assert "cells between semicolons" in form


def test_the_separator_is_what_most_cells_are_between() -> None:
    assert separator_of("a;b;c\n1,5;2,5;x\n") == ";"
    assert separator_of("a\tb\n1,5\t2\n") == "\t"
    assert separator_of("a,b\n1,2\n") == ","


def test_what_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_text('a,"b\n')
    with pytest.raises(DataError, match="every quote needs its other half"):
        read_rows(tmp_path / "t.csv")


def test_columns_are_found_in_any_case_and_rows_may_end_early() -> None:
    columns = Columns(["Video", "Label", ""])
    assert columns.find("file", "video") == "video"
    assert columns.cell(["a"], "video") == "a"
    assert columns.cell(["a"], "label") == columns.cell(["a"], "none") == ""
    assert columns.row(["a", "b", "c"]) == {"Video": "a", "Label": "b"}
