import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from featcache.data.labels import Videos
from featcache.data.labels.videos import Video
from featcache.data.own_videos.base import Measured, Measurements, Wishes
from featcache.data.own_videos.measuring import measuring_files, set_up_measurements
from featcache.errors import DataError
from featcache.manifest import load_manifest


@pytest.fixture
def of_series(tmp_path: Path) -> Callable[..., tuple[Videos, Measurements]]:
    """Videos of as many frames as there are values, and these as measured."""

    def make(*values: list[float], n_frames: int = 0) -> tuple[Videos, Measurements]:
        arrays = {f"{chr(97 + n)}.mp4": np.array(rows, np.float32) for n, rows in enumerate(values)}
        videos = [
            Video(source=name, n_frames=n_frames or len(rows), rate=Fraction(4))
            for name, rows in arrays.items()
        ]
        measured = [
            Measured(
                video=video,
                known=np.isfinite(arrays[video.source]),
                read=partial(dict, {"p": arrays[video.source]}),
                split=split,
            )
            for video, split in zip(videos, ("train", "val", "train"), strict=False)
        ]
        return Videos(tmp_path, videos), Measurements(
            format="values", kind="regression", features={"series": "p"}, videos=tuple(measured), needs="any"
        )

    return make


def test_statistics_are_of_the_known_values_of_training_clips_alone(
    of_series: Callable[..., tuple[Videos, Measurements]], tmp_path: Path
) -> None:
    nan = math.nan
    videos, found = of_series([1, 2, nan, nan, nan, nan, 3, nan], [100, 200], [9, nan, 7, nan])
    made = set_up_measurements(tmp_path, videos, found, Wishes(n_frames=2, stride=1))
    # Clips at 0 and 6 of a, at 0 and 2 of c: 1 2 3, 9 7.
    values = load_manifest(made.manifest).dataset(made.name).values
    assert values is not None
    assert (values.mean, values.std) == pytest.approx((4.4, np.std([1, 2, 3, 9, 7])))
    assert made.rows == ({"split": "train", "clips": 4}, {"split": "val", "clips": 1})
    listed = (tmp_path / "clip_lists" / "train.csv").read_text().splitlines()[1:]
    assert listed == ["a.mp4,0,", "a.mp4,6,", "c.mp4,0,", "c.mp4,2,"]
    assert any("2 left out" in line for line in made.assumed)


def test_a_value_of_a_whole_video_is_one_clip_unless_a_step_is_named(
    of_series: Callable[..., tuple[Videos, Measurements]], tmp_path: Path
) -> None:
    videos, found = of_series([1.5], [2.5], [4.5], n_frames=40)
    made = set_up_measurements(tmp_path, videos, found, Wishes())
    task = load_manifest(made.manifest).task(made.name)
    assert (task.kind, task.clip.sampling) == ("regression", "linspace_clip")
    cut = set_up_measurements(tmp_path, videos, found, Wishes(n_frames=8, stride=1, every=16))
    assert cut.rows[0] == {"split": "train", "clips": 6}


def test_nothing_known_and_nothing_to_learn_are_refused(
    of_series: Callable[..., tuple[Videos, Measurements]], tmp_path: Path
) -> None:
    videos, found = of_series([math.nan] * 4)
    with pytest.raises(DataError, match="no clip shows a frame of which something is known"):
        set_up_measurements(tmp_path, videos, found, Wishes())
    videos, found = of_series([3, 3, 3, 3], [4, 4])
    with pytest.raises(DataError, match=r"all \d+ values of training clips are 3: .*--column"):
        set_up_measurements(tmp_path, videos, found, Wishes(n_frames=2, stride=1))
    assert not (tmp_path / "scivid.yaml").exists()


def test_no_file_of_measurements_is_none(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("what,who\nx,y\n")
    assert measuring_files([tmp_path]) == {}
