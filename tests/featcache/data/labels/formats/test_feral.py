import json
from typing import Any

import pytest

from featcache.errors import DataError


@pytest.mark.parametrize("file", ["single.json", "multi.json"])
def test_each_file_is_its_truth_to_the_frame(file: str, read: Any, truth: Any, runs: Any, of: Any) -> None:
    found, expected = read(f"feral/{file}"), truth("feral")[file]
    assert list(found.classes) == expected["classes"]
    for video, entry in expected["videos"].items():
        labels = of(found, video)
        if entry["rows"] == entry["frames"]:
            assert runs(labels) == entry["per_frame_rle"], video
        (split,) = [split for split, names in expected["splits"].items() if video in names]
        assert (labels.split, labels.rows) == (split, entry["rows"])


def test_a_video_for_inference_is_unknown_and_no_background(read: Any, of: Any) -> None:
    labels = of(read("feral/single.json"), "fly_e.mp4")
    assert (labels.is_labelled, labels.split, labels.bouts) == (False, None, ())


def test_fewer_labels_than_frames_are_refused(read: Any) -> None:
    (refused,) = [remark for remark in read("feral/single.json").remarks if remark.weight == "refuse"]
    assert (refused.kind, refused.where) == ("row_count", "videos/fly_d.mp4")
    assert "140 rows for 150 frames" in refused.text


def test_a_file_of_the_plugin_of_boris_says_what_may_be_wrong(read: Any, kinds: Any) -> None:
    found = read("boris/feral_from_boris.json")
    assert {"from_boris", "row_count", "one_class", "no_labels"} <= kinds(found)
    without = {r.where for r in found.remarks if r.kind == "no_labels"}
    assert without == {"rig/clip_a.mp4", "rig/clip_b.mp4"}


def feral(labels: Any, **more: Any) -> str:
    content = {
        "class_names": {"0": "other", "1": "run"},
        "is_multilabel": False,
        "labels": labels,
        "splits": {},
    }
    return json.dumps(content | more)


@pytest.mark.parametrize("label", [2, -1, True, "1", [0, 1], None])
def test_a_label_of_another_kind_is_refused_with_its_number(label: Any, videos: Any, read_text: Any) -> None:
    found = read_text("f.json", feral({"a.mp4": [0, label]}), videos(a=(1, 2)))
    assert [(r.kind, r.where) for r in found.remarks if r.weight == "refuse"] == [
        ("bad_value", "a.mp4, label 1")
    ]
    assert not found.videos[0].is_labelled


def test_rows_of_a_multi_label_file_must_be_as_wide_as_its_classes(videos: Any, read_text: Any) -> None:
    found = read_text("f.json", feral({"a.mp4": [[0, 1], [1]]}, is_multilabel=True), videos(a=(1, 2)))
    assert [r.kind for r in found.remarks if r.weight == "refuse"] == ["bad_value"]


def test_what_lacks_a_part_is_one_message(videos: Any, read_text: Any) -> None:
    with pytest.raises(DataError, match=r"f\.json is no label file of FERAL: class_names"):
        read_text("f.json", feral({}, class_names=["other"]), videos(a=(1, 2)))
