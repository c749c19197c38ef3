"""From scores of windows to scores of frames: the mean over all windows that a frame lies in.

A frame's score is final when no window to come reaches it, and is given away then.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from einops import repeat
from jaxtyping import Float

ROWS = 65_536
"""Frames that are handed on at a time, at the most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowScores:
    """What a readout says of a window of a video."""

    first: int
    stop: int
    """The frame after the last."""
    scores: Float[np.ndarray, " O"]
    """Probabilities of labels, or values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameScores:
    """The scores of consecutive frames."""

    first: int
    scores: Float[np.ndarray, "F O"]


def frame_scores(windows: Iterable[WindowScores]) -> Iterator[FrameScores]:
    """The scores of all frames, in blocks, in order."""
    first, sums, counts = 0, np.zeros((0, 0)), np.zeros(0)
    for window in windows:
        if window.first - first >= ROWS or not sums.size:
            ready = window.first - first
            if ready:
                yield _block(first, sums[:ready], counts[:ready])
            first, sums, counts = window.first, sums[ready:], counts[ready:]
        reach = window.stop - first
        if reach > len(counts):
            more = reach - len(counts)
            sums = np.concatenate(
                [sums.reshape(-1, len(window.scores)), np.zeros((more, len(window.scores)))]
            )
            counts = np.concatenate([counts, np.zeros(more)])
        shown = slice(window.first - first, reach)
        sums[shown] += window.scores
        counts[shown] += 1
    if len(counts):
        yield _block(first, sums, counts)


def _block(first: int, sums: np.ndarray, counts: np.ndarray) -> FrameScores:
    each = repeat(counts, "f -> f o", o=sums.shape[1])
    return FrameScores(first=first, scores=(sums / each).astype(np.float32))


def smoothed(blocks: Iterable[FrameScores], width: int) -> Iterator[FrameScores]:
    """Moving averages over `width` frames around each, fewer at both ends; an even width takes one more."""
    half = width // 2
    if not half:
        yield from blocks
        return
    held, first, done = np.zeros((0, 0), np.float32), 0, 0
    for block in blocks:
        held = np.concatenate([held, block.scores]) if held.size else block.scores
        ready = block.first + len(block.scores) - half
        if ready > done:
            yield FrameScores(first=done, scores=_means(held, done - first, ready - first, half))
            done = ready
            first, held = max(first, done - half), held[max(0, done - half - first) :]
    if done < first + len(held):
        yield FrameScores(first=done, scores=_means(held, done - first, len(held), half))


def _means(held: Float[np.ndarray, "F O"], begin: int, end: int, half: int) -> Float[np.ndarray, "f O"]:
    """Of those from `begin` to `end`, over what is held around them."""
    sums = np.concatenate([np.zeros((1, held.shape[1])), held.cumsum(axis=0, dtype=np.float64)])
    at = np.arange(begin, end)
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(held))
    means: np.ndarray = ((sums[high] - sums[low]) / (high - low)[:, None]).astype(np.float32)
    return means
