"""The CSV list of clips: what it may say, and one message for each mistake."""

from pathlib import Path
from unicodedata import normalize

import pytest

from featcache.data.readers.video.clip_list import ClipList, read_clip_list
from featcache.errors import DataError

SOURCES = ("day1/a.mp4", "day2/a.mp4", "day2/b.mp4")
CLASSES = ("run", "not running")


def read(
    folder: Path, text: str, sources: tuple[str, ...] = SOURCES, classes: tuple[str, ...] = CLASSES
) -> ClipList:
    path = folder / "clips.csv"
    path.write_bytes(text.encode())
    return read_clip_list(path, sources, classes)


def test_reads_rows_in_order(tmp_path: Path) -> None:
    rows = "labels,video,note,first_frame\nnot running; run,day2/b.mp4,x,20\n,b.mp4,,0\nrun,day1/a.mp4,,7\n"
    found = [(c.row, c.source, c.first_frame, c.labels) for c in read(tmp_path, rows).clips]
    assert found == [
        (2, "day2/b.mp4", 20, (1, 0)),
        (3, "day2/b.mp4", 0, ()),
        (4, "day1/a.mp4", 7, (0,)),
    ]


def test_reads_what_spreadsheets_write(tmp_path: Path) -> None:
    text = '\ufeffvideo,first_frame,labels\r\n"day1/a.mp4", 3 ,not running; run\r\n,,\r\n'
    (clip,) = read(tmp_path, text).clips
    assert (clip.source, clip.first_frame, clip.labels) == ("day1/a.mp4", 3, (1, 0))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("day1/c.mp4,0,run", r"row 3: no video is called 'day1/c.mp4'\. Did you mean"),
        ("a.mp4,0,run", "row 3: no video is called 'a.mp4'"),
        (
            "b.mp4,0,runs",
            r"row 3: no class is called 'runs'\. Did you mean 'run'\? Known are run, not running",
        ),
        ("x" * 5000 + ",0,run", "row 3: no video is called 'x{100}'"),
        (f"b.mp4,0,{'ü' * 5000}", "row 3: no class is called 'ü{100}' .spelled"),
        ("b.mp4,1.5,run", "row 3: first_frame '1.5' is not a whole number"),
        ("b.mp4,-1,run", "row 3: first_frame '-1' is not a whole number"),
        ("b.mp4,,run", "row 3: first_frame '' is not a whole number"),
        ("b.mp4,12.0,run", "row 3: first_frame '12.0' is not a whole number"),
        ('b.mp4,"1,5",run', "row 3: first_frame '1,5' is not a whole number"),
        ("b.mp4,1E+05,run", "row 3: first_frame '1E\\+05' is not a whole number"),
        ("b.mp4,NaN,run", "row 3: first_frame 'NaN' is not a whole number"),
        (f"b.mp4,{'9' * 5000},run", "row 3: first_frame '9{100}' is not a whole number"),
        ("b.mp4,\u0661,run", "row 3: first_frame '.' is not a whole number"),
        ("b.mp4", "row 3: 1 cells, the first row has 3"),
        ("b.mp4,0,run;", "row 3: labels 'run;' have an empty one"),
        ("b.mp4,0,run;;not running", "row 3: labels 'run;;not running' have an empty one"),
        ("b.mp4,0,;", "row 3: labels ';' have an empty one"),
        ("b.mp4,0,run; run", "row 3: labels 'run; run' name 'run' twice"),
        ("day2/b.mp4,5,", "row 3: repeats row 2"),
    ],
)
def test_a_mistake_names_file_and_row(tmp_path: Path, row: str, reason: str) -> None:
    with pytest.raises(DataError, match=rf"clips\.csv, {reason}"):
        read(tmp_path, f"video,first_frame,labels\nb.mp4,5,run\n{row}\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "row 1: no column 'video'"),
        ("video,first_frame\nb.mp4,0\n", "row 1: no column 'labels'"),
        ("video,first_frame,labels\n", "lists no clip"),
        ("video,first_frame,labels\nb.mp4,0,\x00\n", "clips.csv"),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(tmp_path, text)


def test_a_file_that_is_not_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_bytes(b"video,first_frame,labels\n\x81,0,\n")
    for name, reason in (("clips.csv", "is not a text file"), ("none.csv", r"cannot be read \(No such file")):
        with pytest.raises(DataError, match=f"{name} {reason}"):
            read_clip_list(tmp_path / name, SOURCES, CLASSES)


def test_labels_need_classes(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("video,first_frame,labels\nday1/a.mp4,0,run\n")
    with pytest.raises(DataError, match="list `classes` in the manifest"):
        read_clip_list(tmp_path / "clips.csv", SOURCES, ())


@pytest.mark.parametrize(("on_disk", "in_list"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_two_unicode_forms_are_the_same_names(tmp_path: Path, on_disk: str, in_list: str) -> None:
    sources = (normalize(on_disk, "mäuse/käfig é.mp4"), "b.mp4")  # type: ignore[arg-type]
    text = normalize(in_list, "video,first_frame,labels\nkäfig é.mp4,3,für\nb.mp4,0,\n")  # type: ignore[arg-type]
    found = read(tmp_path, text, sources, (normalize(on_disk, "für"),))  # type: ignore[arg-type]
    assert [(clip.source, clip.labels) for clip in found.clips] == [(sources[0], (0,)), ("b.mp4", ())]
    note, unlabelled = found.notes
    assert note.startswith("clips.csv: taken as the same names, though the files and classes have them in")
    assert unlabelled == "clips.csv: 1 of 2 rows have no label (rows 3)."


def test_two_files_that_differ_in_form_alone_are_told_apart(tmp_path: Path) -> None:
    sources = tuple(normalize(form, "é.mp4") for form in ("NFC", "NFD"))  # type: ignore[arg-type]
    text = f"video,first_frame,labels\n{sources[1]},0,run\n{sources[0]},0,run\n"
    assert [clip.source for clip in read(tmp_path, text, sources).clips] == [sources[1], sources[0]]


def test_a_name_that_only_looks_the_same_is_spelled_out(tmp_path: Path) -> None:
    for name in ("\u0430.mp4", "a\u200b.mp4", "a\xa0b.mp4"):
        with pytest.raises(DataError) as problem:
            read(tmp_path, f"video,first_frame,labels\n{name},0,\n", ("a.mp4", "a b.mp4"))
        assert f"no video is called {name!r} (spelled {name!a}). Did you mean" in str(problem.value)
