"""Tracked points as tables: a row a frame and point, a row a point."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from einops import rearrange, repeat
from jaxtyping import Float

from readouts.predict.frames import FrameScores
from readouts.predict.parts import VideoPart
from readouts.predict.tables import write_rows

POINT = ("x", "y", "visible")
"""Numbers of a point in a frame: pixels of the video, and whether it is seen (NaN: the head does not say)."""

SEEN = 0.5
"""From which on a point counts as seen, where frames were averaged or lie between two that were shown."""


def of_points(block: FrameScores) -> Float[np.ndarray, "F Q number"]:
    """The numbers of a block by point."""
    return rearrange(block.scores, "f (q n) -> f q n", n=len(POINT))


def write_tracks(
    path: Path, parts: Iterable[VideoPart], blocks: Callable[[VideoPart], Iterable[FrameScores]]
) -> None:
    """Every point in every frame from its first on: `video`, `frame`, `time`, `point`, `x`, `y`, `visible`.

    Args:
        path: ends as a table.
        parts: of the videos.
        blocks: the numbers of one.
    """
    types = (pa.string(), pa.int64(), pa.float64(), pa.string(), pa.float32(), pa.float32(), pa.bool_())
    names = ("video", "frame", "time", "point", *POINT)
    schema = pa.schema(list(zip(names, types, strict=True)))
    write_rows(path, schema, (_table(part, block, schema) for part in parts for block in blocks(part)))


def _table(part: VideoPart, block: FrameScores, schema: pa.Schema) -> pa.Table:
    points = of_points(block)
    n_frames, n_points, _ = points.shape
    numbers = np.arange(n_frames) + block.first + part.begins
    frames = repeat(numbers, "f -> (f q)", q=n_points)
    x, y, seen = rearrange(points, "f q n -> n (f q)")
    columns = [
        pa.array(np.full(len(frames), part.video)),
        pa.array(frames),
        pa.array(frames / float(part.rate)),
        pa.array(np.tile(np.array(part.names), n_frames)),
        pa.array(x),
        pa.array(y),
        pa.array(seen > SEEN, mask=np.isnan(seen)),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def summary_rows(part: VideoPart, blocks: Iterable[FrameScores]) -> list[dict[str, Any]]:
    """A row a point: since when, in how many frames, in what share of them seen, how many pixels it went."""
    path, seen, n = np.zeros(len(part.names)), np.zeros(len(part.names)), 0
    before: Float[np.ndarray, "1 Q xy"] | None = None
    for block in blocks:
        points = of_points(block)
        xy = points[..., :2] if before is None else np.concatenate([before, points[..., :2]])
        path += np.linalg.norm(np.diff(xy, axis=0), axis=-1).sum(axis=0)
        seen += np.where(np.isnan(points[..., 2]), np.nan, points[..., 2] > SEEN).sum(axis=0)
        before, n = points[-1:, :, :2], n + len(points)
    return [
        {
            "video": part.video,
            "point": name,
            "first frame": part.begins,
            "frames": n,
            "seen": None if np.isnan(share) else round(float(share), 3),
            "path": round(float(length), 1),
        }
        for name, share, length in zip(part.names, seen / n, path, strict=True)
    ]
