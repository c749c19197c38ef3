from pathlib import Path

import numpy as np
import pytest

from featcache.clips import Clip
from featcache.data.readers.video.frame_values import digest_of, path_of, read_values, write_values
from featcache.errors import DataError

CLIP = Clip(id="a.mp4/2", source="x/a.mp4", record=2, n_source=3, digest="0" * 16)


def test_a_clip_has_the_rows_from_its_first_frame_on(tmp_path: Path) -> None:
    write_values(tmp_path, "x/a.mp4", {"speed": np.arange(5.0), "weight": np.array([21.5])})
    found = read_values(tmp_path, CLIP, {"series": "speed", "other": "weight"})
    assert (found["series"].tolist(), found["other"].tolist()) == ([2, 3, 4], [21.5])


def test_rows_of_another_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.mp4\.speed\.npy: it cannot be read .*run `scivid data init`"):
        read_values(tmp_path, CLIP, {"series": "speed"})
    write_values(tmp_path, "x/a.mp4", {"speed": np.arange(4.0)})
    with pytest.raises(DataError, match=r"it has 4 rows for the 5 frames of x/a\.mp4"):
        read_values(tmp_path, CLIP, {"series": "speed"})


def test_the_digest_is_of_every_value(tmp_path: Path) -> None:
    empty = digest_of(tmp_path, ["x/a.mp4"], ["speed"])
    write_values(tmp_path, "x/a.mp4", {"speed": np.arange(4.0)})
    first = digest_of(tmp_path, ["x/a.mp4"], ["speed"])
    np.save(path_of(tmp_path, "x/a.mp4", "speed"), np.arange(4.0) + np.array([0, 0, 0, 1e-9]))
    assert len({empty, first, digest_of(tmp_path, ["x/a.mp4"], ["speed"])}) == 3
