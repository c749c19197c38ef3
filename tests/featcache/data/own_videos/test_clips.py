import tracemalloc
from fractions import Fraction
from typing import Any

import pytest

from featcache.data.labels.base import Bout, Point, Unknown, VideoLabels
from featcache.data.labels.videos import Video
from featcache.data.own_videos.clips import ClipRule, clips_of
from featcache.errors import CallError

VIDEO = Video(source="a.mp4", n_frames=20, rate=Fraction(10))
EIGHTS = ClipRule(n_frames=4, stride=2, every=8)


def labels(*bouts: tuple[str, int, int], **more: Any) -> VideoLabels:
    made = tuple(Bout(label=label, first=first, stop=stop) for label, first, stop in bouts)
    return VideoLabels(video=more.pop("video", VIDEO), bouts=made, **more)


def listed(of: VideoLabels, rule: ClipRule = EIGHTS, classes: tuple[str, ...] = ("run", "sit")) -> Any:
    return [(clip.first_frame, clip.labels) for clip in clips_of(of, classes, rule)]


def test_a_clip_has_the_labels_of_its_middle_frame() -> None:
    # Clips span 7 frames, from 0 and 8, with middles 3 and 11; from 16 there is none.
    assert listed(labels(("run", 3, 4), ("sit", 0, 3), ("sit", 12, 20))) == [(0, ("run",)), (8, ())]
    assert listed(labels(("run", 0, 20), ("sit", 11, 12))) == [(0, ("run",)), (8, ("run", "sit"))]


def test_or_those_that_cover_a_share_of_it() -> None:
    rule = ClipRule(n_frames=4, stride=2, every=8, share=0.5)
    assert listed(labels(("run", 0, 4), ("sit", 4, 7), ("sit", 8, 12)), rule) == [
        (0, ("run",)),
        (8, ("sit",)),
    ]


@pytest.mark.parametrize("share", [None, 0.5])
def test_a_clip_has_the_labels_of_the_points_that_it_holds(share: Any) -> None:
    rule = ClipRule(n_frames=4, stride=2, every=8, share=share)
    # The first clip shows frames 0 to 6, the second 8 to 14.
    at = {0: [0], 6: [0], 7: [], 8: [8], 14: [8], 15: []}
    for frame, firsts in at.items():
        of = labels(points=(Point(label="run", frame=frame), Point(label="hop", frame=3)))
        assert [first for first, names in listed(of, rule) if names == ("run",)] == firsts


def test_clips_at_frames_of_ones_own_are_labelled_by_the_same_rule() -> None:
    of = labels(("run", 3, 4), ("sit", 12, 20))
    assert [clip.labels for clip in clips_of(of, ("run", "sit"), EIGHTS, starts=[0, 1, 10])] == [
        ("run",), (), ("sit",)
    ]  # fmt: skip


@pytest.mark.parametrize("span", [(6, 7, None), (6, 7, "run")])
def test_a_clip_that_touches_an_unknown_frame_is_none(span: Any) -> None:
    first, stop, label = span
    unknown = (Unknown(first=first, stop=stop, reason="x", label=label),)
    assert listed(labels(("sit", 0, 20), unknown=unknown)) == [(8, ("sit",))]


def test_a_bout_tells_what_another_subjects_open_state_does_not() -> None:
    unknown = (Unknown(first=6, stop=7, reason="x", label="run", subject="m2"),)
    assert listed(labels(("run", 0, 20), unknown=unknown)) == [(0, ("run",)), (8, ("run",))]


def test_unknown_frames_of_a_class_that_does_not_count_are_no_matter() -> None:
    unknown = (Unknown(first=0, stop=20, reason="x", label="hop"),)
    assert len(listed(labels(("run", 0, 20), unknown=unknown))) == 2


def test_a_short_video_is_one_clip_and_so_is_each_without_a_step() -> None:
    short = Video(source="a.mp4", n_frames=5, rate=Fraction(10))
    assert listed(labels(("run", 2, 3), video=short)) == [(0, ("run",))]
    assert listed(labels(("run", 0, 20)), ClipRule(n_frames=4)) == [(0, ("run",))]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from featcache.data.own_videos import clips

    long = Video(source="a.mp4", n_frames=1000, rate=Fraction(10))
    of = labels(*(("run", n * 37, n * 37 + 9) for n in range(27)), video=long)
    rule = ClipRule(n_frames=16, stride=2, every=5)
    whole = listed(of, rule)
    monkeypatch.setattr(clips, "_BLOCK", 64)
    assert listed(of, rule) == whole


def test_ten_hours_take_the_memory_of_two() -> None:
    def peak(hours: int) -> int:
        video = Video(source="a.mp4", n_frames=hours * 90_000, rate=Fraction(25))
        of = labels(*(("run", 2500 * n, 2500 * n + 999) for n in range(hours * 36)), video=video)
        rule = ClipRule(n_frames=16, stride=1, every=800)
        tracemalloc.start()
        n = sum(1 for _ in clips_of(of, ["run", "sit"], rule))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert n == len(rule.starts(video.n_frames))
        return used

    assert peak(10) < 1.5 * peak(2)


def test_rules_are_checked_and_say_what_they_do() -> None:
    with pytest.raises(CallError, match="at least 1"):
        ClipRule(every=0)
    with pytest.raises(CallError, match=r"share=1\.5"):
        ClipRule(share=1.5)
    assert "middle frame" in str(EIGHTS)
    assert "cover 50%" in str(ClipRule(share=0.5))
