import json
from typing import Any

import pytest

from featcache.errors import DataError


def test_each_sequence_is_its_truth_to_the_frame(read: Any, truth: Any, runs: Any, of: Any) -> None:
    found, expected = read("calms21"), truth("calms21")
    assert (list(found.classes), found.background) == (expected["classes"], "other")
    for name, entry in expected["sequences"].items():
        labels = of(found, entry["video"])
        assert runs(labels) == entry["per_frame_rle"]
        # Of the training videos 063 to 070 are the benchmark's val.
        assert labels.split == ("val" if "mouse063" in name else name.split("/")[1])


def test_it_says_that_it_has_no_rate_and_that_a_class_is_rare(read: Any, kinds: Any) -> None:
    assert {"no_rate", "rare", "class_missing", "benchmark"} <= kinds(read("calms21"))


def file(*groups: str, labels: Any) -> str:
    sequence = {"annotations": labels, "keypoints": [[0.5]], "metadata": {"vocab": {"hit": 0, "other": 1}}}
    return json.dumps({f"annotator-id_{group}": {"task2/train/a": sequence} for group in groups})


def test_two_annotators_are_asked_and_one_is_taken_when_named(videos: Any, read_text: Any) -> None:
    text, at_hand = file("1", "2", labels=[0, 1, 1]), videos(a=(1, 3))
    asked = read_text("c.json", text, at_hand)
    assert [r.kind for r in asked.remarks if r.weight == "ask"] == ["observers"]
    assert not asked.videos[0].is_labelled
    chosen = read_text("c.json", text, at_hand, channel="annotator-id_2")
    assert [(b.label, b.first, b.stop) for b in chosen.videos[0].bouts] == [("hit", 0, 1), ("other", 1, 3)]


def test_a_number_that_the_vocabulary_lacks_is_refused(videos: Any, read_text: Any) -> None:
    found = read_text("c.json", file("1", labels=[0, 5, 1]), videos(a=(1, 3)))
    assert [r.where for r in found.remarks if r.weight == "refuse"] == ["task2/train/a, label 1"]


def test_what_has_no_sequences_is_one_message(videos: Any, read_text: Any) -> None:
    with pytest.raises(DataError, match=r"c\.json is no label file of CalMS21"):
        read_text("c.json", '{"annotator-id_0": {"a": {"keypoints": []}}}', videos(a=(1, 3)))


def test_task_3_names_a_behaviour_where_others_name_an_annotator(videos: Any, read_text: Any) -> None:
    sequence = {
        "keypoints": [[0.5]], "scores": [[0.5]], "annotations": [0, 0, 1],
        "metadata": {"vocab": {"other": 0, "approach": 1}},
    }  # fmt: skip
    text = json.dumps({"approach": {"task3/train/mouse001_task3_approach": sequence}})
    found = read_text("t.json", text, videos(mouse001_task3_approach=(30, 3)))
    (labels,) = found.videos
    assert [(b.label, b.first, b.stop) for b in labels.bouts] == [("other", 0, 2), ("approach", 2, 3)]
    assert (found.background, labels.split) == ("other", "train")
