"""Tables as spreadsheets save them: encodings and separators are recognised and named, cells counted."""

from pathlib import Path

import pytest

from featcache.data.readers.video.table_text import Table, read_table
from featcache.errors import DataError

COLUMNS = ("video", "first_frame", "labels")
TEXT = 'video,first_frame,labels\r\nmäuse.mp4,5,"run;rest"\r\nb.mp4,7,\r\n'
ROWS = ((2, ("mäuse.mp4", "5", "run;rest")), (3, ("b.mp4", "7", "")))


def read(folder: Path, content: str | bytes) -> Table:
    path = folder / "clips.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, COLUMNS)


@pytest.mark.parametrize(
    ("mark", "encoding", "named"),
    [
        (b"", "utf-8", None),
        (b"\xef\xbb\xbf", "utf-8", "UTF-8 with a byte order mark, cells between"),
        (b"\xff\xfe", "utf-16-le", "UTF-16 LE"),
        (b"\xfe\xff", "utf-16-be", "UTF-16 BE"),
        (b"", "utf-16-le", "UTF-16 LE"),
        (b"", "utf-16-be", "UTF-16 BE"),
        (b"", "cp1252", "Windows-1252 (it is not UTF-8)"),
    ],
)
@pytest.mark.parametrize(("separator", "word"), [(",", "commas"), (";", "semicolons"), ("\t", "tabs")])
@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r"])
def test_every_encoding_separator_and_line_end_is_read_and_named(
    tmp_path: Path, mark: bytes, encoding: str, named: str | None, separator: str, word: str, line_end: str
) -> None:
    text = TEXT.replace(",", separator).replace("\r\n", line_end)
    table = read(tmp_path, mark + text.encode(encoding))
    assert (table.columns, table.rows) == (COLUMNS, ROWS)
    if named is None and separator == ",":
        assert table.notes == ()
    else:
        (note,) = table.notes
        assert note.startswith(f"clips.csv: read as {named or 'UTF-8'}")
        assert note.endswith(f"cells between {word}.")


@pytest.mark.parametrize("said", ["sep=;", '"sep=;"', "SEP=;", "sep=;;;"])
def test_the_first_line_of_excel_says_the_separator(tmp_path: Path, said: str) -> None:
    table = read(tmp_path, f"{said}\r\n" + TEXT.replace(",", ";"))
    assert table.rows == tuple((row + 1, cells) for row, cells in ROWS)
    with pytest.raises(DataError, match="row 2: no column 'video'"):
        read(tmp_path, "sep=;\n" + TEXT)


def test_empty_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    table = read(tmp_path, TEXT + ",,\r\n\r\n" + ",,\r\n" * 7)
    assert table.rows == ROWS
    assert table.notes == ("clips.csv: 9 empty rows are left out (4, 5, 6, 7, 8 and 4 more).",)
    assert read(tmp_path, TEXT + "\n").notes == ("clips.csv: 1 empty row is left out (4).",)
    assert read(tmp_path, "\n\r\n" + TEXT).rows[0] == (4, ROWS[0][1])


def test_empty_columns_of_a_spreadsheet_are_no_columns(tmp_path: Path) -> None:
    table = read(tmp_path, "video,first_frame,labels,,\nb.mp4,7,,,\n")
    assert table.columns == (*COLUMNS, "", "")
    assert table.rows == ((2, ("b.mp4", "7", "", "", "")),)
    with pytest.raises(DataError, match="row 2: 'rest' stands in a column without a name"):
        read(tmp_path, "video,first_frame,labels,\nb.mp4,7,run,rest\n")


def test_a_cell_may_hold_lines_quotes_and_separators(tmp_path: Path) -> None:
    text = 'video,note,first_frame,labels\n"b,1.mp4","two\nlines, ""quoted""",7,run\na.mp4,,0,\n'
    table = read(tmp_path, text)
    assert table.rows == (
        (2, ("b,1.mp4", 'two\nlines, "quoted"', "7", "run")),
        (3, ("a.mp4", "", "0", "")),
    )


@pytest.mark.parametrize(
    ("row", "n_cells"),
    [("b.mp4,7", 2), ("b.mp4", 1), ("b.mp4,7,run,rest", 4), ("b.mp4;7;run", 1), ("b.mp4,7,run,", 4)],
)
def test_too_many_or_too_few_cells_are_refused_with_the_row(tmp_path: Path, row: str, n_cells: int) -> None:
    with pytest.raises(DataError, match=rf"clips\.csv, row 3: {n_cells} cells, the first row has 3\. Fill"):
        read(tmp_path, f"video,first_frame,labels\na.mp4,0,\n{row}\n")


@pytest.mark.parametrize("header", ["video,first_frame,labels,labels", "video,labels,first_frame, Video"])
def test_a_doubled_column_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match=r"row 1: two columns are called '(labels|video)'; rename or remove"):
        read(tmp_path, f"{header}\nb.mp4,0,0,0\n")


def test_a_file_cut_in_its_last_row(tmp_path: Path) -> None:
    """Refused where cells or a quote are missing; where it could be whole, one line says so."""
    whole = TEXT.encode()
    for cut in range(len(whole) - 1, len(whole) - 7, -1):
        try:
            table = read(tmp_path, whole[:cut])
        except DataError as problem:
            assert "row 3: " in str(problem)
        else:
            assert table.rows in (ROWS, ROWS[:1])
            assert any("no line end after row 3" in note for note in table.notes) or whole[cut - 1] in b"\r\n"
    with pytest.raises(DataError, match=r"unexpected end of data.*every quote needs its other half"):
        read(tmp_path, whole[:48])
    with pytest.raises(DataError, match="is not a text file in UTF-16 LE: save it as CSV UTF-8"):
        read(tmp_path, b"\xff\xfe" + TEXT.encode("utf-16-le")[:-1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04\x14\x00\x06\x00", "is not a text file in UTF-8 or Windows-1252"),
        (b"video,first_frame,labels\nb\x81.mp4,0,\n", "is not a text file in UTF-8 or"),
        (b"video,first_frame,labels\nb.mp4,0,\0\n", "is not a text file in"),
        (b"", "row 1: no column 'video'"),
        (b"video,first_frame\nb.mp4,0\n", "row 1: no column 'labels'"),
        (
            b"video|first_frame|labels\n",
            "row 1: no column 'video'; that row must be video,first_frame,labels",
        ),
        (b"video,first_frame,labels\n" + b"x" * 200_000 + b",0,\n", "field larger than field limit"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)
    with pytest.raises(DataError, match="not a regular file"):
        read_table(Path("/dev/zero"), COLUMNS)
