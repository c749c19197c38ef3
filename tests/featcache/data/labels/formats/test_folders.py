from typing import Any

import pytest

from featcache.errors import DataError


def test_each_video_has_its_folder_as_its_label_and_its_split(read: Any, truth: Any) -> None:
    found, expected = read("videofolder_classes"), truth("videofolder")["videofolder_classes"]
    assert list(found.classes) == expected["classes"]
    placed = {
        (labels.split, labels.bouts[0].label, labels.video.source.split("/")[-1]) for labels in found.videos
    }
    assert placed == {
        (split, label, name)
        for split, names_of in expected["per_split"].items()
        for label, names in names_of.items()
        for name in names
    }
    assert all((b.first, b.stop) == (0, 32) for labels in found.videos for b in labels.bouts)


def test_junk_empty_classes_and_the_same_video_in_two_splits_are_said(read: Any) -> None:
    said = {(remark.kind, remark.where) for remark in read("videofolder_classes").remarks}
    assert {
        ("not_video", ""), ("not_video", "train/dig/._a1.mp4"), ("empty_class", "train/empty class"),
        ("class_missing", "split test"), ("leak", ""),
    } <= said  # fmt: skip


def test_folders_without_splits_are_classes(tmp_path: Any, videos: Any) -> None:
    from featcache.data.labels import Choices, read_labels

    found = read_labels([tmp_path], videos(names={"dig/a.mp4": (1, 5), "run/b.mp4": (1, 5)}), Choices())
    assert [(v.split, v.bouts[0].label) for v in found.videos] == [(None, "dig"), (None, "run")]


def test_a_folder_without_classes_is_one_message(tmp_path: Any, videos: Any) -> None:
    from featcache.data.labels import Choices, read_labels

    with pytest.raises(DataError, match="has no folder a class"):
        read_labels([tmp_path], videos(a=(1, 5)), Choices())
