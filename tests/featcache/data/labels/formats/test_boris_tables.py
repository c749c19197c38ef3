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


FORMER = "Observation id,Media file,Total length,FPS,Subject,Behavior,Behavior type,Start (s),Stop (s)\n"


def test_files_of_a_former_table_are_in_the_order_of_their_times(videos: Any, read_text: Any) -> None:
    # Rows go by behaviour: the second file's come first. 10 s and 8 s make the 18 s of all.
    text = FORMER + "o,b.mp4,18.000,10,,dig,STATE,12.000,13.000\no,a.mp4,18.000,10,,run,STATE,1.000,2.000\n"
    found = read_text("t.csv", text, videos(a=(10, 100), b=(10, 80)))
    bouts = {of.video.source: [(b.label, b.first, b.stop) for b in of.bouts] for of in found.videos}
    assert bouts == {"a.mp4": [("run", 10, 20)], "b.mp4": [("dig", 20, 30)]}
    assert not [remark for remark in found.remarks if remark.kind == "length"]


def test_a_former_table_that_does_not_name_all_its_files_is_refused(videos: Any, read_text: Any) -> None:
    text = FORMER + "o,b.mp4,48.000,10,,dig,STATE,32.000,33.000\no,c.mp4,48.000,10,,run,STATE,41.000,42.000\n"
    found = read_text("t.csv", text, videos(b=(10, 100), c=(10, 80)))
    assert not any(of.bouts for of in found.videos)
    (refused,) = [remark for remark in found.remarks if remark.weight == "refuse"]
    assert (refused.kind, refused.where) == ("no_time", "o")
    assert "48 s long together" in refused.text and "18 s" in refused.text


def test_files_without_an_event_count_where_the_lines_above_name_them(videos: Any, read_text: Any) -> None:
    text = (
        "Observation id,o,,,,,,\nMedia file(s),,,,,,,\nPlayer #1,a.mp4,,,,,,\nPlayer #1,b.mp4,,,,,,\n"
        "Player #2,side.mp4,,,,,,\nTime offset (s),0.0,,,,,,\n"
        "Time,Media file path,Total length,FPS,Subject,Behavior,Comment,Status\n"
        "12.000,b.mp4,18.000,10,,run,,START\n13.000,b.mp4,18.000,10,,run,,STOP\n"
    )
    a, b = read_text("t.csv", text, videos(a=(10, 100), b=(10, 200))).videos
    assert (a.video.source, a.bouts) == ("a.mp4", ())
    assert [(bout.first, bout.stop) for bout in b.bouts] == [(20, 30)]


def test_lengths_in_a_table_are_rounded_up_and_a_joint_holds(videos: Any, read_text: Any) -> None:
    # 10.0436 s: the program's clock is 10.043 when b begins, the table has 10.044.
    text = (
        "Observation id,Source,Time offset (s),Media duration (s),FPS,Subject,Behavior,Behavior type,Time\n"
        + "".join(
            f"o,player #1:a.mp4;b.mp4|player #2:c.mp4,0.0,10.044;8.000|9.000,25;25|25,,{event}\n"
            for event in ("run,START,10.043", "run,STOP,10.143", "hop,POINT,10.043")
        )
    )
    found = read_text("t.csv", text, videos(a=(25, 251), b=(25, 200)))
    a, b = found.videos
    assert (a.bouts, a.points) == ((), ())
    assert [(bout.first, bout.stop) for bout in b.bouts] == [(0, 3)]
    assert [point.frame for point in b.points] == [0]


@pytest.mark.parametrize("kind", ["Live observation", "From pictures", "From directories of images"])
def test_what_was_not_coded_from_a_video_is_left_out(
    kind: str, videos: Any, read_text: Any, kinds: Any
) -> None:
    text = (
        "Observation id,Observation type,Source,FPS (frame/s),Behavior,Behavior type,Start (s),Stop (s)\n"
        f"o,{kind},NA,NA,run,STATE,NA,NA\n"
    )
    found = read_text("t.csv", text, videos(a=(10, 100)))
    assert not found.videos
    assert [remark.weight for remark in found.remarks if remark.kind == "live"] == ["say"]
    assert "no_time" not in kinds(found)


def test_a_table_that_knows_no_offset_says_so(videos: Any, read_text: Any) -> None:
    text = FORMER + "o,a.mp4,10.000,10,,run,STATE,1.000,2.000\n"
    (said,) = [r for r in read_text("t.csv", text, videos(a=(10, 100))).remarks if r.kind == "offset"]
    assert "no column tells a time offset" in said.text
