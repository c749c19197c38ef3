from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from featcache.data.labels.base import Bout, VideoLabels
from featcache.data.labels.videos import Video
from featcache.data.own_videos.clips import ListedClip
from featcache.data.own_videos.splits import SHARES, groups_of, listed_before, split_videos, splits_of
from featcache.data.own_videos.writing import LISTS, publish_list


def video(name: str, *classes: str, group: str = "", n_frames: int = 100) -> VideoLabels:
    bouts = tuple(Bout(label=label, first=0, stop=10) for label in classes)
    return VideoLabels(
        video=Video(source=name, n_frames=n_frames, rate=Fraction(25)), bouts=bouts, group=group
    )


def test_animals_of_a_column_are_kept_together() -> None:
    videos = [video("a.mp4", group="m1"), video("b.mp4", group="m1"), video("c.mp4")]
    groups, how = groups_of(videos)
    assert groups == {"a.mp4": "m1", "b.mp4": "m1", "c.mp4": "c.mp4"}
    assert "column" in how


def test_subjects_of_one_video_each_are_kept_together() -> None:
    made = [video(f"{n}.mp4", "run") for n in range(6)]
    whose = [replace(v, bouts=(replace(v.bouts[0], subject=f"m{n // 2}"),)) for n, v in enumerate(made)]
    groups, how = groups_of(whose)
    assert list(groups.values()) == ["m0", "m0", "m1", "m1", "m2", "m2"]
    assert "by subject" in how
    # One name in all videos is a role, not an animal.
    same = [replace(v, bouts=(replace(v.bouts[0], subject="resident"),)) for v in made]
    assert groups_of(same)[1] == "by video"


def test_names_tell_animals_where_several_videos_share_a_first_word() -> None:
    names = [f"mouse{m}_day{d}.mp4" for m in (1, 2, 3) for d in (1, 2)]
    groups, how = groups_of([video(name) for name in names])
    assert set(groups.values()) == {"mouse1", "mouse2", "mouse3"}
    assert "first word" in how
    # An animal with one video does not part the videos of the others.
    some = groups_of([video(name) for name in [*names[:4], "new_day1.mp4"]])[0]
    assert list(some.values()) == ["mouse1", "mouse1", "mouse2", "mouse2", "new"]
    # Of two animals, or of names of one video each, nothing can be held out or is known.
    assert groups_of([video(name) for name in names[:4]])[1] == "by video"
    assert groups_of([video(f"{n}.mp4") for n in range(9)])[1] == "by video"


def test_each_class_is_in_each_split_where_groups_allow() -> None:
    videos = [video(f"{n:02d}.mp4", "run", *(["sit"] if n % 3 == 0 else [])) for n in range(20)]
    groups, _ = groups_of(videos)
    split_of = split_videos(videos, groups)
    for split in ("train", "val", "test"):
        names = {label.label for v in videos if split_of[v.video.source] == split for label in v.bouts}
        assert names == {"run", "sit"}, split
    sizes = [list(split_of.values()).count(split) for split in ("train", "val", "test")]
    assert sizes == [14, 3, 3]
    assert split_videos(videos, groups) == split_of


def test_groups_are_never_divided_and_few_ones_fill_every_split() -> None:
    videos = [video(f"{m}_{n}.mp4", "run", group=m) for m in ("x", "y", "z") for n in range(4)]
    groups, _ = groups_of(videos)
    split_of = split_videos(videos, groups)
    assert set(split_of.values()) == {"train", "val", "test"}
    assert len({(groups[name], split) for name, split in split_of.items()}) == 3


def test_with_two_videos_there_is_no_test_and_with_one_nothing_is_held_out() -> None:
    two = [video("a.mp4", "run", n_frames=200), video("b.mp4", "run")]
    assert set(split_videos(two, groups_of(two)[0]).values()) == {"train", "val"}
    one = [video("a.mp4", "run")]
    assert split_videos(one, groups_of(one)[0]) == {"a.mp4": "train"}


def _animals() -> list[VideoLabels]:
    """Five animals of two videos each, as a lab had them: three of 1000 frames, two of 540."""
    what = {"m1": ("rest",), "m2": ALL, "m3": ALL, "m4": ("wing", "chase"), "m5": ALL}
    return [video(f"{m}_{n}.mp4", *what[m], n_frames=500 if m < "m4" else 270) for m in what for n in "ab"]


ALL = ("wing", "chase", "rest")


def test_few_animals_are_dealt_as_near_to_the_shares_as_they_allow() -> None:
    videos = _animals()
    split_of, how = splits_of(videos)
    frames = {s: sum(v.video.n_frames for v in videos if split_of[v.video.source] == s) for s in SHARES}
    # Of all ways that leave no class out, the nearest: both videos of m5 and of m2 or m3 are held out.
    assert frames == {"train": 2540, "val": 540, "test": 1000} or frames == {
        "train": 2540,
        "val": 1000,
        "test": 540,
    }
    for split in SHARES:
        assert {b.label for v in videos if split_of[v.video.source] == split for b in v.bouts} == set(ALL)
    assert f"{100 * 2540 / 4080:.0f} / " in how


def test_a_corrected_label_and_new_videos_leave_the_others_in_their_splits() -> None:
    videos = _animals()
    before, _ = splits_of(videos)
    other = [replace(v, bouts=v.bouts[:1]) if v.video.source == "m2_b.mp4" else v for v in videos]
    assert splits_of(other, before)[0] == before
    added = [video("m2_c.mp4", "wing"), *(video(f"m{n}_a.mp4", "rest") for n in range(6, 20)), *other]
    split_of, how = splits_of(added, before)
    assert {source: split_of[source] for source in before} == before
    assert split_of["m2_c.mp4"] == before["m2_a.mp4"]
    assert "10 of 25 videos stay" in how


def test_the_lists_of_a_folder_say_where_its_videos_were(tmp_path: Path) -> None:
    clips = [ListedClip(source=name, first_frame=0, labels=()) for name in ("a.mp4", "b, c.mp4")]
    publish_list(tmp_path / LISTS / "val.csv", clips)
    assert listed_before(tmp_path) == {"a.mp4": "val", "b, c.mp4": "val"}
    assert listed_before(tmp_path / "none") == {}


def test_a_first_test_split_is_made_of_what_is_new() -> None:
    old = {"a.mp4": "train", "b.mp4": "val"}
    split_of, _ = splits_of([video(name, "run") for name in ("a.mp4", "b.mp4", "c.mp4")], old)
    assert split_of == {**old, "c.mp4": "test"}
