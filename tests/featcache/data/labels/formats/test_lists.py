from typing import Any

import pytest

from featcache.errors import DataError


@pytest.mark.parametrize("split", ["train", "val"])
def test_each_list_is_its_truth(split: str, read: Any, truth: Any) -> None:
    found = read(f"vjepa/{split}.csv")
    rows = [[v.video.source, int(v.bouts[0].label)] for v in found.videos]
    assert rows == [row for row in truth("vjepa")[split] if not row[0].startswith("/")]
    assert {v.split for v in found.videos} == {split}


def test_what_both_lists_show_is_said(read: Any, of: Any) -> None:
    found = read("vjepa/train.csv", "vjepa/val.csv")
    said = {(remark.kind, remark.where) for remark in found.remarks}
    assert {
        ("other_path", "row 4"), ("no_video", "row 4"), ("leak", "clips/p2.mp4"), ("numbers", ""),
        ("class_missing", "split train"), ("empty_class", ""),
    } <= said  # fmt: skip
    assert of(found, "p2.mp4").split == "train"


def test_names_with_spaces_tabs_and_quotes(videos: Any, read_text: Any) -> None:
    found = read_text("t.txt", '"a b.mp4" 3\nc.mp4\t1\n', videos(names={"a b.mp4": (1, 5), "c.mp4": (1, 5)}))
    assert [(v.video.source, v.bouts[0].label) for v in found.videos] == [("a b.mp4", "3"), ("c.mp4", "1")]


def test_a_line_that_is_no_row_is_one_message(videos: Any, read_text: Any) -> None:
    with pytest.raises(DataError, match=r"row 2: 'b\.mp4 walk' is not a path"):
        read_text("t.txt", "a.mp4 3\nb.mp4 walk\n", videos(a=(1, 5)))


def test_two_labels_of_one_video_are_refused(videos: Any, read_text: Any) -> None:
    found = read_text("t.txt", "a.mp4 3\na.mp4 4\n", videos(a=(1, 5)))
    assert [(r.kind, r.where) for r in found.remarks if r.weight == "refuse"] == [("bad_value", "row 2")]


def test_two_folders_with_the_same_names_are_never_mixed(videos: Any, read_text: Any) -> None:
    text = "/data/day1/cam.mp4 1\n/data/day2/cam.mp4 2\n"
    found = read_text("t.csv", text, videos(names={"day2/cam.mp4": (1, 5)}))
    assert [(v.video.source, [b.label for b in v.bouts]) for v in found.videos] == [("day2/cam.mp4", ["2"])]
    assert found.missing == ("/data/day1/cam.mp4",)
    found = read_text("t.csv", text, videos(names={"cam.mp4": (1, 5)}))
    assert not any(v.video.source == "cam.mp4" for v in found.videos)
    assert [r.kind for r in found.remarks if r.weight == "ask"] == ["several_videos"]
