"""A picture a video: strips of scores and bouts, as wide for ten hours as for a minute; paths of points."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from featcache.system.files import publish
from readouts.predict.bouts import Bout
from readouts.predict.frames import FrameScores
from readouts.predict.label_files import distinct_stems
from readouts.predict.parts import VideoPart
from readouts.predict.track_tables import of_points
from readouts.report.figures.ethogram import ethogram, value_lines
from readouts.report.figures.tracking import paths_on_frame

BINS = 900
"""Stretches that a video is cut into, at the most."""


def publish_pictures(out: Path, parts: Sequence[VideoPart], draw: Callable[[VideoPart], bytes]) -> Path:
    """Write the picture of each part into a folder beside `out`, which is returned."""
    folder = out.with_name(f"{out.stem}_pictures")
    for part, stem in zip(parts, distinct_stems([part.video for part in parts]), strict=True):
        publish(folder / f"{stem}.png", draw(part))
    return folder


def picture(
    part: VideoPart, blocks: Iterable[FrameScores], bouts: Sequence[Bout] | None, names: Sequence[str]
) -> bytes:
    """The PNG of a video; `bouts` is None of values."""
    seconds = part.n_frames / float(part.rate)
    means = binned(blocks, part.n_frames)
    if bouts is None:
        return value_lines(means, names, seconds, title=part.video)
    rate = float(part.rate)
    bars = [
        [(b.first / rate, (b.stop - b.first) / rate) for b in bouts if b.output == number]
        for number in range(len(names))
    ]
    return ethogram(means, bars, names, seconds, title=part.video)


def tracks_picture(
    part: VideoPart, blocks: Iterable[FrameScores], frame: UInt8[np.ndarray, "Y X 3"]
) -> bytes:
    """The PNG of points on the frame in which they begin: where they begin, where they go, where they end."""
    every, kept, last = -(-part.n_frames // BINS), list[np.ndarray](), None
    for block in blocks:
        kept.append(of_points(block)[-block.first % every :: every, :, :2])
        last = of_points(block)[-1:, :, :2]
    assert last is not None, "a part has a frame"
    first, rate = part.begins, float(part.rate)
    title = f"{part.video}, {part.n_frames} frames from frame {first} on ({first / rate:.2f} s)"
    return paths_on_frame(frame, np.concatenate([*kept, last]), part.names, title=title)


def binned(blocks: Iterable[FrameScores], n_frames: int) -> Float[np.ndarray, "bins O"]:
    """Means over equal stretches of a video of so many frames."""
    n_bins = min(BINS, n_frames)
    sums: list[np.ndarray] = []
    counts = np.zeros(n_bins)
    for block in blocks:
        bins = (np.arange(block.first, block.first + len(block.scores)) * n_bins) // n_frames
        counts += np.bincount(bins, minlength=n_bins)
        of_block = [np.bincount(bins, column, minlength=n_bins) for column in block.scores.T]
        sums = [a + b for a, b in zip(sums, of_block, strict=True)] if sums else of_block
    return np.stack(sums, axis=1) / counts[:, None]
