"""Tables of tracked points: a row a frame and point, and what a point did in all."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from readouts.predict.frames import FrameScores
from readouts.predict.parts import VideoPart, write_part
from readouts.predict.track_tables import summary_rows, write_tracks

NAN = float("nan")


def part_of(folder: Path) -> VideoPart:
    """Two points from frame 5 on: one goes by 3 and 4 and is hidden once, of one nothing is said."""
    rows = np.array([[0, 0, 1, 9, 9, NAN], [3, 4, 0, 9, 9, NAN], [3, 4, 1, 9, 10, NAN]], np.float32)
    blocks = [FrameScores(first=0, scores=rows[:1]), FrameScores(first=1, scores=rows[1:])]
    write_part(folder / "p", blocks, ("a", "b"), numbers=3, begins=5, video="v.mp4", rate=Fraction(10))
    return VideoPart(folder / "p")


def test_a_row_a_frame_and_point(tmp_path: Path) -> None:
    write_tracks(tmp_path / "t.parquet", [part_of(tmp_path)], VideoPart.blocks)
    table = pq.read_table(tmp_path / "t.parquet")
    assert table["frame"].to_pylist() == [5, 5, 6, 6, 7, 7]
    assert table["time"].to_pylist() == [0.5, 0.5, 0.6, 0.6, 0.7, 0.7]
    assert table["point"].to_pylist() == ["a", "b"] * 3
    assert table["y"].to_pylist() == [0, 9, 4, 9, 4, 10]
    assert table["visible"].to_pylist() == [True, None, False, None, True, None]


def test_a_row_a_point(tmp_path: Path) -> None:
    part = part_of(tmp_path)
    first, second = summary_rows(part, part.blocks())
    assert first == {
        "video": "v.mp4", "point": "a", "first frame": 5, "frames": 3, "seen": 0.667, "path": 5.0
    }  # fmt: skip
    assert (second["seen"], second["path"]) == (None, 1.0)
