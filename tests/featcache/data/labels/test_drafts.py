from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.data.labels.base import NO, UNKNOWN, YES
from featcache.data.labels.drafts import Draft, Drafts


@pytest.fixture
def draft(videos: Any) -> Draft:
    """Of a video of 100 frames, 10 a second."""
    draft = Drafts(Path("labels.csv"), videos(a=(10, 100))).of("a.mp4")
    assert draft is not None
    return draft


def said(draft: Draft) -> list[tuple[str, str]]:
    return [(remark.kind, remark.weight) for remark in draft.remarks.all]


def test_half_a_frame_past_the_end_is_a_cut_and_less_is_none(draft: Draft) -> None:
    draft.add_seconds("row 2", "run", Fraction(9), Fraction("10.04"))
    assert said(draft) == []
    draft.add_seconds("row 3", "run", Fraction(9), Fraction("10.05"))
    assert said(draft) == [("past_end", "say")]
    assert [(bout.first, bout.stop) for bout in draft.bouts] == [(90, 100), (90, 100)]


def test_frames_past_the_end_before_the_start_and_backwards(draft: Draft) -> None:
    draft.add_frames("row 2", "run", 90, 101)
    draft.add_frames("row 3", "run", 100, 101)
    draft.add_frames("row 4", "run", -1, 5)
    draft.add_frames("row 5", "run", 9, 5)
    assert said(draft) == [
        ("past_end", "say"), ("after_end", "refuse"), ("backwards", "refuse"), ("backwards", "refuse")
    ]  # fmt: skip
    assert [(span.first, span.stop, span.label) for span in draft.unknown] == [(5, 10, "run")]


def test_a_point_at_the_very_end_is_on_the_last_frame(draft: Draft) -> None:
    draft.add_point("row 2", "hop", Fraction(10))
    assert [point.frame for point in draft.points] == [99]
    draft.add_point("row 3", "hop", Fraction("10.5"))
    assert said(draft) == [("after_end", "refuse")]


def test_a_bout_that_shows_no_frame_is_a_point_and_said(draft: Draft) -> None:
    draft.add_seconds("row 2", "hop", Fraction("1.32"), Fraction("1.38"))
    draft.add_seconds("row 3", "hop", Fraction(2), Fraction(2))
    assert said(draft) == [("zero_length", "say")] * 2
    assert [point.frame for point in draft.points] == [14, 20]
    labels = draft.done()
    assert not labels.bouts
    assert np.flatnonzero(labels.pointed(["hop"])[0]).tolist() == [14, 20]
    assert not labels.pointed(["run"]).any()


def test_rows_become_runs_and_unknown_spans(draft: Draft) -> None:
    states = np.full((100, 2), NO, np.int8)
    states[10:20, 0] = YES
    states[99, 1] = YES
    states[30:40] = UNKNOWN
    states[50:60, 1] = UNKNOWN
    assert draft.add_rows(["run", "sit"], states)
    labels = draft.done()
    assert [(b.label, b.first, b.stop) for b in labels.bouts] == [("run", 10, 20), ("sit", 99, 100)]
    assert [(u.first, u.stop, u.label) for u in labels.unknown] == [(30, 40, None), (50, 60, "sit")]
    assert (labels.states(["run", "sit"]) == states.T).all()
    assert (labels.states(["sit"], first=45, stop=65) == states[45:65, 1:].T).all()


def test_states_of_one_subject_leave_out_the_others(draft: Draft) -> None:
    draft.add_frames("1", "run", 0, 10, subject="m1")
    draft.add_frames("2", "run", 20, 30, subject="m2")
    draft.add_unknown(50, 60, "never closed", label="run", subject="m2")
    states = draft.done().states(["run"], subject="m1")[0]
    assert (states[:10].tolist(), set(states[10:].tolist())) == ([YES] * 10, {NO})
    assert draft.done().states(["run"])[0, 50:60].tolist() == [UNKNOWN] * 10


def test_the_rate_and_length_of_the_file_against_those_of_the_video(draft: Draft) -> None:
    draft.check_rate(Fraction("10.001"))
    draft.check_length(Fraction("10.1"))
    assert said(draft) == []
    draft.check_rate(Fraction(12))
    draft.check_length(Fraction(11))
    assert said(draft) == [("rate", "say"), ("length", "say")]


def test_a_name_of_several_videos_is_asked_and_of_none_is_missing(videos: Any) -> None:
    drafts = Drafts(Path("labels.csv"), videos(names={"x/a.mp4": (1, 5), "y/a.mp4": (1, 5)}))
    assert drafts.of("a.mp4", "row 2") is None
    assert drafts.of("c.mp4", "row 3") is None
    found = drafts.annotations("intervals", [])
    assert [(r.kind, r.weight, r.where) for r in found.remarks] == [
        ("several_videos", "ask", "row 2"), ("no_video", "say", "row 3")
    ]  # fmt: skip
    assert found.missing == ("c.mp4",)


def test_unknown_spans_that_cover_a_video_make_it_unlabelled(draft: Draft) -> None:
    draft.add_unknown(0, 60, "x")
    draft.add_unknown(60, 99, "x")
    assert draft.done().is_labelled
    draft.add_unknown(99, 100, "x", label="run")
    assert draft.done().is_labelled
    draft.add_unknown(90, 200, "x")
    assert not draft.done().is_labelled
