"""A picture a video: strips of scores and bouts, as wide for ten hours as for a minute."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from readouts.predict.bouts import Bout
from readouts.predict.frames import FrameScores
from readouts.predict.parts import VideoPart
from readouts.report.figures.ethogram import ethogram, value_lines

BINS = 900
"""Stretches that a video is cut into, at the most."""


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
