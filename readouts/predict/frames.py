"""From scores of windows to scores of frames: the mean over all windows that a frame lies in.

A frame's score is final when no window to come reaches it, and is given away then.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from einops import repeat
from jaxtyping import Float, Int

ROWS = 65_536
"""Frames that are handed on at a time, at the most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowScores:
    """What a readout says of a window of a video."""

    first: int
    stop: int
    """The frame after the last."""
    scores: Float[np.ndarray, "*F O"]
    """Probabilities of labels, or values: of the window as a whole, or a row for each of its frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameScores:
    """The scores of consecutive frames."""

    first: int
    scores: Float[np.ndarray, "F O"]


def frame_scores(windows: Iterable[WindowScores]) -> Iterator[FrameScores]:
    """The scores of all frames, in blocks, in order."""
    first, ready, n_ready = 0, list[np.ndarray](), 0
    sums, counts = np.zeros((0, 0)), np.zeros(0)
    for window in windows:
        # What no window reaches any more is final; no more is summed up than one window covers.
        final = window.first - first
        if final:
            ready.append(_means_of(sums[:final], counts[:final]))
            first, n_ready = window.first, n_ready + final
            if n_ready >= ROWS:
                yield FrameScores(first=first - n_ready, scores=np.concatenate(ready))
                ready, n_ready = [], 0
        more = window.stop - first - (len(counts) - final)
        blank = np.zeros((max(0, more), window.scores.shape[-1]))
        sums = np.concatenate([sums[final:], blank]) if sums.size else blank
        counts = np.concatenate([counts[final:], np.zeros(len(blank))])
        shown = slice(window.first - first, window.stop - first)
        sums[shown] += window.scores
        counts[shown] += 1
    if len(counts):
        last = [*ready, _means_of(sums, counts)]
        yield FrameScores(first=first - n_ready, scores=np.concatenate(last))


def of_every_frame(
    shown: Int[np.ndarray, " n"], values: Float[np.ndarray, "n O"], n_frames: int
) -> Float[np.ndarray, "F O"]:
    """Values of all frames of a window: those between two that it shows lie on a straight line.

    Args:
        shown: those frames, from 0, in order; behind a video's end the last one again, which counts once.
        values: of them.
        n_frames: of the window.
    """
    places, first = np.unique(shown, return_index=True)
    lines = [np.interp(np.arange(n_frames), places, column) for column in values[first].T]
    return np.stack(lines, axis=1)


def _means_of(sums: np.ndarray, counts: np.ndarray) -> Float[np.ndarray, "F O"]:
    each = repeat(counts, "f -> f o", o=sums.shape[1])
    means: np.ndarray = (sums / each).astype(np.float32)
    return means


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
            yield FrameScores(first=done, scores=_moving(held, done - first, ready - first, half))
            done = ready
            first, held = max(first, done - half), held[max(0, done - half - first) :]
    if done < first + len(held):
        yield FrameScores(first=done, scores=_moving(held, done - first, len(held), half))


def _moving(held: Float[np.ndarray, "F O"], begin: int, end: int, half: int) -> Float[np.ndarray, "f O"]:
    """Of those from `begin` to `end`, over what is held around them."""
    sums = np.concatenate([np.zeros((1, held.shape[1])), held.cumsum(axis=0, dtype=np.float64)])
    at = np.arange(begin, end)
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(held))
    means: np.ndarray = ((sums[high] - sums[low]) / (high - low)[:, None]).astype(np.float32)
    return means
