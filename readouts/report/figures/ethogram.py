"""What a video shows over time: for each class a strip of its scores, and its bouts below it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from readouts.report.figures.base import BASELINE_COLOUR, SMALL, TRUTH_COLOUR, Axes, picture_file, sheet

SCORE_MAP = "Blues"
BAND, BAR = 0.52, 0.2
"""Heights of the strip of scores and of the bouts below it; a class has 1."""
WIDEST = 9.0
"""Inches."""


def ethogram(
    scores: Float[np.ndarray, "bins O"],
    bouts: Sequence[Sequence[tuple[float, float]]],
    names: Sequence[str],
    seconds: float,
    *,
    title: str,
) -> bytes:
    """A picture, PNG.

    Args:
        scores: probabilities of the classes, means over equal stretches of the video.
        bouts: of each class start and length in seconds.
        names: of the classes.
        seconds: of the video.
        title: above it.
    """
    figure, (axes,) = sheet(1, 1, height=0.5 * len(names) + 1.1, width=WIDEST)
    for row, name in enumerate(names):
        top = len(names) - row
        box = (0, seconds, top - BAND, top)
        image = axes.imshow(scores[:, row][None], aspect="auto", cmap=SCORE_MAP, vmin=0, vmax=1, extent=box)
        bars = [*bouts[row]]
        axes.broken_barh(bars, (top - BAND - 0.04 - BAR, BAR), color=TRUTH_COLOUR, linewidth=0)
        axes.text(-0.01, top - BAND / 2, name, ha="right", va="center", fontsize=SMALL,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set(xlim=(0, seconds), ylim=(0.15, len(names) + 0.1), yticks=[])
    axes.spines["left"].set_visible(False)
    _clock(axes, seconds)
    axes.set_title(title, loc="left", fontsize=SMALL + 1)
    bar = figure.colorbar(image, ax=axes, pad=0.015, fraction=0.03, ticks=[0, 0.5, 1])
    bar.set_label("score; black: bouts", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)
    return picture_file(figure)


def value_lines(
    values: Float[np.ndarray, "bins O"], names: Sequence[str], seconds: float, *, title: str
) -> bytes:
    """The same of values instead of classes: a line each, the first and last named."""
    figure, (axes,) = sheet(1, 1, height=2.6, width=WIDEST)
    times = (np.arange(len(values)) + 0.5) * seconds / len(values)
    for name, line in zip(names, values.T, strict=True):
        axes.plot(times, line, linewidth=1.2, label=name)
    axes.set(xlim=(0, seconds))
    axes.grid(axis="y", color=BASELINE_COLOUR, alpha=0.2)
    _clock(axes, seconds)
    axes.set_title(title, loc="left", fontsize=SMALL + 1)
    axes.legend(frameon=False, fontsize=SMALL, ncols=min(len(names), 6))
    return picture_file(figure)


def _clock(axes: Axes, seconds: float) -> None:
    if seconds >= 120:
        axes.xaxis.set_major_formatter(lambda at, _: _as_clock(at))
        axes.set_xlabel("time (h:mm:ss)" if seconds >= 3600 else "time (m:ss)", fontsize=SMALL + 0.5)
    else:
        axes.set_xlabel("time (s)", fontsize=SMALL + 0.5)


def _as_clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
