from dataclasses import replace
from typing import Any

import pytest

from featcache.errors import DataError

PAIR_1 = [
    "boris_mice_aggregated.csv",
    "boris_mice_aggregated.tsv",
    "boris_mice_pair_obs1_tabular.csv",
    "boris_mice_pair_obs1_tabular.tsv",
    "boris_old_tabular_pair_obs1.csv",
    "boris_old_aggregated_pair_obs1.csv",
]
OTHERS = [
    ("boris_mice_aggregated.csv", "rate_obs", "arena_02.mp4"),
    ("boris_mice_aggregated.tsv", "fixed_obs", "arena_06.mp4"),
    ("boris_mice_aggregated.csv", "queue_obs", "clip_a.mp4"),
    ("boris_mice_aggregated.csv", "queue_obs", "clip_b.mp4"),
    ("boris_mice_unpaired_obs_tabular.tsv", "unpaired_obs", "arena_03.mp4"),
    ("boris_old_tabular_offset_obs.tsv", "offset_obs", "arena_04.mp4"),
]


@pytest.mark.parametrize(
    ("table", "observation", "video"), [*((file, "pair_obs1", "arena_01.mp4") for file in PAIR_1), *OTHERS]
)
def test_each_table_is_the_truth_to_the_frame(
    table: str, observation: str, video: str, read: Any, truth: Any, runs: Any, of: Any
) -> None:
    labels = replace(of(read(f"boris/{table}"), video), unknown=())
    expected = truth("boris")["observations"][observation]
    expected = expected.get("per_file", {}).get(video, expected)
    for subject, rle in expected["per_frame_rle_by_subject"].items():
        assert runs(labels, subject) == rle, subject
    points = expected.get("points", expected.get("points_time_label_subject_modifiers"))
    assert [[float(p.seconds), p.label, p.subject or None, None] for p in labels.points] == points


def test_modifiers_are_read_from_one_column_and_from_several(read: Any, of: Any) -> None:
    for table in PAIR_1:
        groomed = [
            b.modifiers for b in of(read(f"boris/{table}"), "arena_01.mp4").bouts if b.label == "groom"
        ]
        assert groomed == [("head", "left"), ("tail", "")], table
        apart = of(read(f"boris/{table}", modifiers=True), "arena_01.mp4").bouts
        names = [bout.label for bout in apart if bout.label.startswith("groom")]
        assert names == ["groom (head, left)", "groom (tail)"], table


def test_a_start_without_a_stop_is_unknown_from_there_on(read: Any, of: Any, kinds: Any) -> None:
    found = read("boris/boris_mice_unpaired_obs_tabular.tsv")
    (span,) = of(found, "arena_03.mp4").unknown
    assert (span.first, span.stop, span.label, span.subject) == (255, 299, "walk", "resident")
    assert "unclosed" in kinds(found)


@pytest.mark.parametrize("subject", ["No_focal_subject", "intruder", "resident"])
def test_a_binary_table_is_refused_whole(subject: str, read: Any) -> None:
    with pytest.raises(DataError, match="a row a step of time, not a frame") as refused:
        read(f"boris/boris_mice_pair_obs1_binary_1s_{subject}.tsv")
    assert ("two columns are called 'groom'" in str(refused.value)) == (subject == "resident")


def test_a_stop_without_a_start_is_refused_with_its_row(videos: Any, read_text: Any) -> None:
    text = "Observation id,Behavior,Behavior type,Time,Media file name,FPS\no,run,STOP,1.0,a.mp4,10\n"
    found = read_text("t.csv", text, videos(a=(10, 100)))
    assert [(r.kind, r.where) for r in found.remarks if r.weight == "refuse"] == [("backwards", "row 2")]


def test_columns_are_found_wherever_they_are(videos: Any, read_text: Any) -> None:
    text = (
        "Stop (s);mood;Behavior type;Start (s);Behavior;Media file name;FPS (frame/s)\n"
        "2,5;good;STATE;1,5;run;C:\\rec\\a.mp4;10\n"
    )
    (labels,) = read_text("t.csv", text, videos(a=(10, 100))).videos
    assert [(bout.label, bout.first, bout.stop) for bout in labels.bouts] == [("run", 15, 25)]
