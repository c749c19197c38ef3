from collections import Counter
from fractions import Fraction
from pathlib import Path

from featcache.data.labels.base import Bout, Point, VideoLabels
from featcache.data.labels.videos import Video, Videos
from featcache.data.own_videos.counting import class_rows, folder_lines


def test_bouts_seconds_and_clips_of_each_class() -> None:
    video = Video(source="a.mp4", n_frames=100, rate=Fraction(25))
    bouts = (Bout(label="run", first=0, stop=50), Bout(label="run", first=60, stop=85))
    clips = {"train": Counter({"run": 3, "": 2}), "val": Counter({"": 1})}
    rows = class_rows([VideoLabels(video=video, bouts=bouts)], {"a.mp4": "train"}, clips, ["run", "sit"])
    assert rows == [
        {"class": "run", "bouts": 2, "seconds": "3.0", "clips train": 3, "clips val": 0},
        {"class": "sit", "bouts": 0, "seconds": "0.0", "clips train": 0, "clips val": 0},
        {"class": "(none of them)", "bouts": None, "seconds": None, "clips train": 2, "clips val": 1},
    ]
    hop = (Point(label="sit", frame=3),)
    (_, sat, _) = class_rows(
        [VideoLabels(video=video, points=hop)], {"a.mp4": "train"}, {"train": Counter(sit=1)}, ["run", "sit"]
    )
    assert sat == {"class": "sit", "points": 1, "clips train": 1}


def test_sizes_rates_and_what_cannot_be_read(tmp_path: Path) -> None:
    made = [
        Video(source=f"{n}.mp4", n_frames=100, rate=Fraction(25 + n), width=64, height=48) for n in (0, 5)
    ]
    first, second = folder_lines(Videos(tmp_path, made, broken=[("x.mp4", "it is empty")]))
    assert "2 videos" in first
    assert "64 x 48" in first
    assert "25 (1), 30 (1) frames a second" in first
    assert second == "cannot be read, and left out: x.mp4 (it is empty)"
