from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from featcache.data.labels.videos import Videos, measure
from featcache.data.readers.base import UnreadableError
from featcache.data.readers.video.sample_tables import sample_tables
from tests.featcache.data.readers.video.small_videos import remuxed, write_video


def test_every_video_of_the_folder_has_its_rate_and_its_frames(own_data: Path) -> None:
    import json

    expected = json.loads((own_data / "videos.json").read_text())
    found = {video.source: video for video in Videos.below(own_data)}
    assert {name: (video.n_frames, video.rate) for name, video in found.items()} == {
        name: (entry["frames"], Fraction(entry["rate"])) for name, entry in expected.items()
    }
    assert {name: (video.width, video.height, video.n_uneven) for name, video in found.items()} == {
        name: (entry["width"], entry["height"], 0) for name, entry in expected.items()
    }


def test_what_cannot_be_read_is_told_apart(own_data: Path) -> None:
    videos = Videos.below(own_data / "videofolder_classes")
    assert [source for source, _ in videos.broken] == ["train/dig/._a1.mp4"]
    assert "train/dig/notes.txt" in videos.others
    with pytest.raises(UnreadableError):
        measure(own_data / "videofolder_classes/train/dig/._a1.mp4", "a")


def test_frames_off_an_even_rate_are_counted(tmp_path: Path) -> None:
    import av
    import numpy as np

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as box:
        out = box.add_stream("mpeg4", rate=25)
        out.width, out.height, out.pix_fmt = 64, 48, "yuv420p"
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), i, np.uint8))
            frame.pts, frame.time_base = i * i, Fraction(1, 25)
            box.mux(out.encode(frame))
        box.mux(out.encode())
    assert measure(path, "a.mp4").n_uneven > 5


@pytest.mark.parametrize("gap", [0, 1])
def test_tables_and_packets_tell_the_same(tmp_path: Path, gap: int) -> None:
    by_tables = write_video(tmp_path / "h264.mp4", gap=gap)
    by_packets = remuxed(by_tables, tmp_path / "in.mp4", movflags="frag_keyframe+delay_moov")
    assert sample_tables(by_tables) is not None
    assert sample_tables(by_packets) is None
    assert measure(by_tables, "a.mp4") == measure(by_packets, "a.mp4")
    assert (measure(by_tables, "a.mp4").n_uneven > 0) == (gap > 0)


@pytest.mark.parametrize(
    ("name", "source", "how"),
    [
        ("x/a.mp4", "x/a.mp4", "same"),
        ("a.mp4", "x/a.mp4", "same"),
        ("./x/a.mp4", "x/a.mp4", "same"),
        ("D:\\rig\\a.mp4", "x/a.mp4", "other_path"),
        ("/data/A.MP4", "x/a.mp4", "other_path"),
        ("a.seq", "x/a.mp4", "other_ending"),
        ("a", "x/a.mp4", "other_ending"),
        ("b.mp4", None, "several"),
        ("y/b.mp4", "y/b.mp4", "same"),
        ("E:/y/b.mp4", "y/b.mp4", "other_path"),
        ("cafe\u0301.mp4", "caf\u00e9.mp4", "same"),
        ("none.mp4", None, "none"),
        ("1.5 days", "1.5 days.mp4", "other_ending"),
    ],
)
def test_a_name_of_any_machine_finds_its_video(name: str, source: str | None, how: str, videos: Any) -> None:
    at_hand = videos(
        names=dict.fromkeys(["x/a.mp4", "x/b.mp4", "y/b.mp4", "caf\u00e9.mp4", "1.5 days.mp4"], (1, 5))
    )
    match = at_hand.find(name)
    assert (match.video.source if match.video else None, match.how) == (source, how)


def test_a_label_file_means_the_video_beside_it(videos: Any, tmp_path: Path) -> None:
    at_hand = videos(names={"x/b.mp4": (1, 5), "y/b.mp4": (1, 5)})
    beside = at_hand.beside(tmp_path / "y" / "labels.csv")
    assert at_hand.find("b.mp4", beside=beside).video.source == "y/b.mp4"
    assert at_hand.find("b", beside=beside, by_stem=True).video.source == "y/b.mp4"
    assert at_hand.beside(Path("/elsewhere/labels.csv")) == ""


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["day1/cam.mp4", "cam.mp4", "cam"], ["day1/cam.mp4", "cam.mp4", "cam"]),
        (["day1/cam.mp4", "day2/cam.mp4"], ["day1/cam.mp4"]),
        (["D:\\rig\\day2\\cam.mp4", "D:\\rig\\Day1\\cam.mp4", "cam.avi"], ["D:\\rig\\Day1\\cam.mp4"]),
        (["x/cam.mp4", "y/cam.mp4"], []),
        (["cam.avi", "cam.mov"], []),
        (["day1/cam.2.mp4", "day1/cam.2"], ["day1/cam.2.mp4", "day1/cam.2"]),
    ],
)
def test_which_of_the_names_that_lead_to_a_video_mean_it(names: list[str], meant: list[str]) -> None:
    from featcache.data.labels.videos import meant_by

    assert meant_by("day1/cam.mp4", names) == (meant, [name for name in names if name not in meant])
