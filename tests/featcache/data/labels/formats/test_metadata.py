from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache.errors import DataError


def test_the_table_is_its_truth_with_groups(read: Any, truth: Any) -> None:
    found, expected = read("videofolder_csv"), truth("videofolder")["videofolder_csv"]["rows"]
    rows = [[v.video.source, v.bouts[0].label, v.group] for v in found.videos]
    assert rows == [row for row in expected if row[0] != "clips/v9.mp4"]
    assert found.missing == ("clips/v9.mp4",)
    said = {(remark.kind, remark.where) for remark in found.remarks}
    assert {("no_video", "row 6"), ("unlisted", "")} <= said


def test_lists_of_labels_are_their_truth_and_an_empty_one_is_labelled(read: Any, truth: Any, of: Any) -> None:
    found = read("videofolder_jsonl")
    for row in truth("videofolder")["videofolder_jsonl"]["rows"]:
        labels = of(found, row["file_name"])
        assert ([b.label for b in labels.bouts], labels.split) == (row["label"], "train")
        assert labels.is_labelled
    assert ("labelled_nothing", "row 3") in {(remark.kind, remark.where) for remark in found.remarks}


def test_a_cell_without_a_label_is_unknown_and_no_negative(videos: Any, read_text: Any) -> None:
    found = read_text(
        "metadata.csv", "file_name,label,split\na.mp4,,valid\nb.mp4,x;y,test\n", videos(a=(1, 5), b=(1, 5))
    )
    a, b = found.videos
    assert (a.is_labelled, a.split) == (False, "val")
    assert ([bout.label for bout in b.bouts], b.split) == (["x", "y"], "test")


def test_parquet_is_read_as_the_others(tmp_path: Any, videos: Any) -> None:
    from featcache.data.labels import Choices, read_labels

    path = tmp_path / "metadata.parquet"
    pq.write_table(pa.table({"file_name": ["a.mp4"], "label": [["x"]], "animal": ["m1"]}), path)
    (labels,) = read_labels([path], videos(a=(1, 5)), Choices()).videos
    assert ([bout.label for bout in labels.bouts], labels.group) == (["x"], "m1")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "name,label\na,b\n", "no column file_name"),
        ("metadata.jsonl", '{"file_name": "a.mp4"}\n{', "row 2 is no JSON"),
        ("metadata.parquet", "x", "is no parquet file"),
        ("metadata.csv", "file_name,label\n,b\n", "row 2: no file_name"),
    ],
)
def test_what_cannot_be_read_is_one_message(
    name: str, text: str, message: str, videos: Any, read_text: Any
) -> None:
    with pytest.raises(DataError, match=message):
        read_text(name, text, videos(a=(1, 5)))


@pytest.mark.parametrize("heading", ["video,label", "file_name,Behavior", "mouse,video_path,label"])
def test_a_list_of_whole_videos_needs_no_special_name(heading: str, videos: Any, read_text: Any) -> None:
    cells = {"video": "a.mp4", "file_name": "a.mp4", "video_path": "a.mp4", "mouse": "m1"}
    row = ",".join(cells.get(name, "dig") for name in heading.split(","))
    found = read_text("mine.csv", f"{heading}\n{row}\n", videos(a=(10, 100)))
    assert found.format == "metadata"
    assert [(b.label, b.first, b.stop) for b in found.videos[0].bouts] == [("dig", 0, 100)]


@pytest.mark.parametrize("more", ["frame", "StartTime", "t_stop", "duration"])
def test_a_table_with_times_is_no_list_of_whole_videos(more: str) -> None:
    from pathlib import Path

    from featcache.data.labels.formats.metadata import recognises

    assert recognises(Path("mine.csv"), "video,label\n")
    assert not recognises(Path("mine.csv"), f"video,{more},label\n")
    for of_ours in ("video,first_frame,labels\n", "video,class,bouts,seconds,mean bout\n"):
        assert not recognises(Path("mine.csv"), of_ours)
