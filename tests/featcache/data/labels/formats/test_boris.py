import gzip
import json
from fractions import Fraction
from typing import Any

import pytest

from featcache.data.labels.formats.boris import modifiers_of
from featcache.errors import DataError

PROJECT = "boris/boris_mice.boris"


@pytest.mark.parametrize(
    ("observation", "video"),
    [
        ("pair_obs1", "arena_01.mp4"),
        ("pair_obs2", "arena_01.mp4"),
        ("rate_obs", "arena_02.mp4"),
        ("unpaired_obs", "arena_03.mp4"),
        ("offset_obs", "arena_04.mp4"),
        ("fixed_obs", "arena_06.mp4"),
        ("queue_obs", "clip_a.mp4"),
        ("queue_obs", "clip_b.mp4"),
    ],
)
def test_each_observation_is_its_truth_to_the_frame(
    observation: str, video: str, read: Any, truth: Any, runs: Any, of: Any
) -> None:
    labels = of(read(PROJECT, observations=(observation,)), video)
    expected = truth("boris")["observations"][observation]
    expected = expected.get("per_file", {}).get(video, expected)
    for subject, rle in expected["per_frame_rle_by_subject"].items():
        known = runs(without_unknown(labels), subject)
        assert known == rle, subject
    states = expected.get("states") or expected["states_start_stop_label_subject_modifiers"]
    found = [
        [*map(float, bout.seconds), bout.label, bout.subject, written(bout.modifiers)]
        for bout in labels.bouts
    ]
    assert sorted(map(str, found)) == sorted(map(str, states))
    points = expected.get("points", expected.get("points_time_label_subject_modifiers"))
    assert [[float(p.seconds), p.label, p.subject or None, None] for p in labels.points] == points


def written(modifiers: tuple[str, ...]) -> str | None:
    return "|".join(part or "None" for part in modifiers) or None


def without_unknown(labels: Any) -> Any:
    from dataclasses import replace

    return replace(labels, unknown=())


def test_a_state_that_is_never_closed_is_unknown_for_its_class_and_subject(read: Any, of: Any) -> None:
    (span,) = of(read(PROJECT), "arena_03.mp4").unknown
    assert (span.first, span.stop, span.label, span.subject) == (255, 299, "walk", "resident")


def test_it_ends_with_the_video_where_the_user_says_so(read: Any, of: Any) -> None:
    labels = of(read(PROJECT, unclosed="end"), "arena_03.mp4")
    assert not labels.unknown
    assert labels.bouts[-1].stop == 299


def test_a_video_without_an_event_is_unknown_until_the_user_says_otherwise(read: Any, of: Any) -> None:
    assert not of(read(PROJECT), "arena_05.mp4").is_labelled
    assert of(read(PROJECT, uncoded="nothing"), "arena_05.mp4").is_labelled


def test_two_observers_are_asked_and_both_taken_only_where_both_are_named(read: Any, of: Any) -> None:
    asked = [remark for remark in read(PROJECT).remarks if remark.weight == "ask"]
    assert [(remark.kind, remark.where) for remark in asked] == [("observers", "rig/arena_01.mp4")]
    assert "--observation pair_obs1" in asked[0].text
    both = of(read(PROJECT, observations=("pair_obs1", "pair_obs2")), "arena_01.mp4")
    assert len(both.bouts) == 13


def test_a_name_of_no_observation_lists_those_there_are(read: Any) -> None:
    (remark,) = [r for r in read(PROJECT, observations=("pair",)).remarks if r.where == ""][:1]
    assert "'pair'" in remark.text or "pair" in remark.text
    assert "queue_obs" in remark.text


def project(**observations: Any) -> str:
    behaviours = {"0": {"code": "run", "type": "State event"}, "1": {"code": "hop", "type": "Point event"}}
    return json.dumps({"behaviors_conf": behaviours, "observations": observations})


def observation(*events: list[Any], files: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "MEDIA", "file": files or {"1": ["a.mp4"]}, "events": list(events), **more}


def test_events_out_of_order_are_put_in_order(videos: Any, read_text: Any) -> None:
    entry = observation([3.0, "", "run", "", ""], [1.0, "", "run", "", ""])
    (labels,) = read_text("p.boris", project(o=entry), videos(a=(10, 100))).videos
    assert [(bout.first, bout.stop, bout.seconds) for bout in labels.bouts] == [
        (10, 30, (Fraction(1), Fraction(3)))
    ]


def test_a_packed_project_is_read(videos: Any, read_text: Any) -> None:
    entry = observation([1.0, "", "run", "", ""], [2.0, "", "run", "", ""])
    packed = gzip.compress(project(o=entry).encode())
    assert read_text("p.boris.gz", packed, videos(a=(10, 100))).videos[0].bouts


def test_an_observed_interval_leaves_the_rest_unknown(videos: Any, read_text: Any) -> None:
    entry = observation([3.0, "", "hop", "", ""], **{"observation time interval": [2, 5]})
    (labels,) = read_text("p.boris", project(o=entry), videos(a=(10, 100))).videos
    assert [(span.first, span.stop) for span in labels.unknown] == [(0, 20), (50, 100)]


def test_a_behaviour_that_left_the_ethogram_is_refused(videos: Any, read_text: Any) -> None:
    found = read_text("p.boris", project(o=observation([3.0, "", "old", "", ""])), videos(a=(10, 100)))
    (refused,) = [remark for remark in found.remarks if remark.weight == "refuse"]
    assert (refused.kind, refused.where) == ("unknown_class", "o, event 1")


def test_a_second_view_is_left_out_and_said(videos: Any, read_text: Any, kinds: Any) -> None:
    entry = observation([3.0, "", "hop", "", ""], files={"1": ["a.mp4"], "2": ["b.mp4"], "3": []})
    found = read_text("p.boris", project(o=entry), videos(a=(10, 100), b=(10, 100)))
    assert [labels.video.source for labels in found.videos] == ["a.mp4"]
    assert {"views", "unlisted"} <= kinds(found)


def test_times_that_do_not_hold_the_offset_are_taken_as_they_are(videos: Any, read_text: Any) -> None:
    entry = observation([3.0, "", "hop", "", ""], **{"time offset": 120})
    (labels,) = read_text("p.boris", project(o=entry), videos(a=(10, 100))).videos
    assert labels.points[0].frame == 30


@pytest.mark.parametrize("theirs", ["D:\\bob\\a.mp4", "/home/bob/a.mp4"])
def test_two_observers_are_asked_whatever_path_each_has(
    theirs: str, videos: Any, read_text: Any, kinds: Any
) -> None:
    events = [1.0, "", "run", "", ""], [2.0, "", "run", "", ""]
    mine = observation(*events, files={"1": ["/home/ann/a.mp4"]})
    other = observation([5.0, "", "run", "", ""], [6.0, "", "run", "", ""], files={"1": [theirs]})
    text, at_hand = project(mine=mine, other=other), videos(a=(10, 100))
    found = read_text("p.boris", text, at_hand)
    assert not found.videos
    assert [r.kind for r in found.remarks if r.weight == "ask"] == ["observers"]
    (labels,) = read_text("p.boris", text, at_hand, observations=("other",)).videos
    assert [(bout.first, bout.stop) for bout in labels.bouts] == [(50, 60)]
    (both,) = read_text("p.boris", text, at_hand, observations=("mine", "other")).videos
    assert [(bout.first, bout.stop) for bout in both.bouts] == [(10, 20), (50, 60)]


def test_of_two_folders_with_the_same_names_the_one_at_hand_is_taken(videos: Any, read_text: Any) -> None:
    first = observation([1.0, "", "hop", "", ""], files={"1": ["D:/rig/day1/cam.mp4"]})
    second = observation([2.0, "", "hop", "", ""], files={"1": ["D:/rig/day2/cam.mp4"]})
    found = read_text(
        "p.boris", project(first=first, second=second), videos(names={"day2/cam.mp4": (10, 100)})
    )
    (labels,) = found.videos
    assert [point.frame for point in labels.points] == [20]
    assert found.missing == ("D:/rig/day1/cam.mp4",)


def test_two_cards_with_one_file_name_in_an_observation_are_asked(videos: Any, read_text: Any) -> None:
    files = {"1": ["/c/100GOPRO/GH01.mp4", "/c/101GOPRO/GH01.mp4"]}
    info = {"length": dict.fromkeys(files["1"], 10.0)}
    entry = observation([11.0, "", "hop", "", ""], files=files, media_info=info)
    found = read_text("p.boris", project(o=entry), videos(names={"GH01.mp4": (10, 100)}))
    assert not found.videos
    assert ("several_videos", "ask") in {(r.kind, r.weight) for r in found.remarks}
    both = videos(names={"100GOPRO/GH01.mp4": (10, 100), "101GOPRO/GH01.mp4": (10, 100)})
    found = read_text("p.boris", project(o=entry), both)
    assert [[p.frame for p in labels.points] for labels in found.videos] == [[], [10]]


def test_times_from_the_files_dates_count_from_each_file(videos: Any, read_text: Any) -> None:
    # Filmed at 1,767,323,045 and an hour later, and coded with an offset of two seconds.
    begin = {"a.mp4": 1767326645, "b.mp4": 1767323045}
    info = {"length": {"a.mp4": 10.0, "b.mp4": 10.0}, "media_creation_time": begin}
    events = [
        [begin["b.mp4"] + 2 + 0.5, "", "run", "", ""],
        [begin["b.mp4"] + 2 + 1.5, "", "run", "", ""],
        [begin["a.mp4"] + 2 + 3.0, "", "hop", "", ""],
    ]
    more = {"media_creation_date_as_offset": True, "time offset": 2.0, "media_info": info}
    entry = observation(*events, files={"1": ["a.mp4", "b.mp4"]}, **more)
    b, a = read_text("p.boris", project(o=entry), videos(a=(10, 100), b=(10, 100))).videos
    assert ([point.frame for point in a.points], a.bouts) == ([30], ())
    assert ([(bout.first, bout.stop) for bout in b.bouts], b.points) == ([(5, 15)], ())


def test_the_second_file_begins_where_whole_milliseconds_of_the_first_end(
    videos: Any, read_text: Any
) -> None:
    # The program's clock is 10.043 s there, not 10.0436.
    info = {"length": {"a.mp4": 10.0436, "b.mp4": 8.0}}
    events = [10.043, "", "run", "", ""], [10.143, "", "run", "", ""], [10.043, "", "hop", "", ""]
    entry = observation(*events, files={"1": ["a.mp4", "b.mp4"]}, media_info=info)
    a, b = read_text("p.boris", project(o=entry), videos(a=(25, 251), b=(25, 200))).videos
    assert (a.bouts, a.points) == ((), ())
    assert [(bout.first, bout.stop) for bout in b.bouts] == [(0, 3)]
    assert [point.frame for point in b.points] == [0]


def test_a_file_that_is_queued_twice_is_one_observer(videos: Any, read_text: Any) -> None:
    info = {"length": {"a.mp4": 10.0}}
    events = [1.0, "", "hop", "", ""], [12.0, "", "hop", "", ""]
    entry = observation(*events, files={"1": ["a.mp4", "a.mp4"]}, media_info=info)
    (labels,) = read_text("p.boris", project(o=entry), videos(a=(10, 100))).videos
    assert [point.frame for point in labels.points] == [10, 20]


def test_a_project_of_the_first_format_is_read(videos: Any, read_text: Any) -> None:
    events = [1.0, "", "run", "", ""], [2.0, "", "run", "", ""]
    entry = observation(*events, files=["C:\\films\\a.mp4"]) | {"type": "VIDEO"}
    (labels,) = read_text("p.boris", project(o=entry), videos(a=(10, 100))).videos
    assert [(bout.first, bout.stop) for bout in labels.bouts] == [(10, 20)]


@pytest.mark.parametrize("text", ["{", "[]", '{"observations": {}}', "\x00\x01"])
def test_what_is_no_project_is_one_message(text: str, videos: Any, read_text: Any) -> None:
    with pytest.raises(DataError, match=r"p\.boris is no BORIS project"):
        read_text("p.boris", text, videos(a=(10, 100)))


def test_modifiers_that_were_left_open_are_empty() -> None:
    assert modifiers_of("tail|None") == ("tail", "")
    assert modifiers_of("") == ()
