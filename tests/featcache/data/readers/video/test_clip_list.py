"""The CSV list of clips: what it may say, and one message for each mistake."""

from pathlib import Path

import pytest

from featcache.data.readers.video.clip_list import ClipStart, read_clip_list
from featcache.errors import DataError

SOURCES = ("day1/a.mp4", "day2/a.mp4", "day2/b.mp4")
CLASSES = ("run", "not running")


def read(folder: Path, text: str) -> tuple[ClipStart, ...]:
    path = folder / "clips.csv"
    path.write_bytes(text.encode())
    return read_clip_list(path, SOURCES, CLASSES)


def test_reads_rows_in_order(tmp_path: Path) -> None:
    rows = "labels,video,note,first_frame\nnot running; run,day2/b.mp4,x,20\n,b.mp4,,0\nrun,day1/a.mp4,,7\n"
    found = [(c.row, c.source, c.first_frame, c.labels) for c in read(tmp_path, rows)]
    assert found == [
        (2, "day2/b.mp4", 20, (1, 0)),
        (3, "day2/b.mp4", 0, ()),
        (4, "day1/a.mp4", 7, (0,)),
    ]


def test_reads_what_spreadsheets_write(tmp_path: Path) -> None:
    (clip,) = read(tmp_path, '\ufeffvideo,first_frame,labels\r\n"day1/a.mp4", 3 ,run;\r\n')
    assert (clip.source, clip.first_frame, clip.labels) == ("day1/a.mp4", 3, (0,))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("day1/c.mp4,0,run", r"row 3: no video is called 'day1/c.mp4'\. Did you mean"),
        ("a.mp4,0,run", "row 3: no video is called 'a.mp4'"),
        (
            "b.mp4,0,runs",
            r"row 3: no class is called 'runs'\. Did you mean 'run'\? Known are run, not running",
        ),
        ("b.mp4,1.5,run", "row 3: first_frame '1.5' is not a whole number"),
        ("b.mp4,-1,run", "row 3: first_frame '-1' is not a whole number"),
        ("b.mp4,,run", "row 3: first_frame '' is not a whole number"),
        ("b.mp4", "row 3: first_frame '' is not a whole number"),
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
    (tmp_path / "clips.csv").write_bytes(b"video,first_frame,labels\n\xff\xfe,0,\n")
    for name, reason in (("clips.csv", "is not a CSV file"), ("none.csv", r"cannot be read \(No such file")):
        with pytest.raises(DataError, match=f"{name} {reason}"):
            read_clip_list(tmp_path / name, SOURCES, CLASSES)


def test_labels_need_classes(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("video,first_frame,labels\nday1/a.mp4,0,run\n")
    with pytest.raises(DataError, match="list `classes` in the manifest"):
        read_clip_list(tmp_path / "clips.csv", SOURCES, ())
