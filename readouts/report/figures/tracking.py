"""Where points end up: end points and paths on the frames, and how far off they are.

Coordinates are (x, y) in shares of the frame's width and height, as the heads give them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, UInt8

from readouts.report.figures.base import (
    BASELINE_COLOUR,
    GUIDE_COLOUR,
    SMALL,
    TRUTH_COLOUR,
    WIDTH,
    Axes,
    Style,
    as_baseline,
    as_readout,
    colours_of,
    legend_above,
    palette,
    photograph,
    picture_file,
    sheet,
    svg,
)

THRESHOLDS = (4, 8, 16, 32, 64)
"""Pixels at 1280 x 1024; accuracy is the mean share of points within them (SciVid, section on STIR)."""
EDGES = 2.0 ** np.arange(0, 11.01, 0.5)
"""Pixels, of the histogram's bins; smaller errors fall into the first and larger ones into the last."""
DOT: Style = {"marker": "o", "markersize": 5, "markeredgewidth": 0.8, "linestyle": ""}
RING: Style = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "linestyle": ""}
HALO: Style = {"color": "black", "alpha": 0.55, "linewidth": 2.4}


def end_points(
    first_frame: UInt8[np.ndarray, "Y X 3"],
    last_frame: UInt8[np.ndarray, "Y X 3"],
    query: Float[np.ndarray, "Q 2"],
    path: Float[np.ndarray, "F Q 2"],
    true_end: Float[np.ndarray, "P 2"],
    *,
    valid_query: Bool[np.ndarray, "Q"] | None = None,
    valid_end: Bool[np.ndarray, "P"] | None = None,
    aspect: float | None = None,
) -> str:
    """First and last frame side by side: query points, predicted paths and ends, true end points.

    Args:
        first_frame: RGB.
        last_frame: RGB.
        query: the points asked for, in the first frame.
        path: where the head sees them in each frame.
        true_end: where points are in the last frame, in any order.
        valid_query: which are no padding; all, if not given.
        valid_end: which are no padding; all, if not given.
        aspect: width over height of the video, where the frames were squeezed.
    """
    query, path = (query, path) if valid_query is None else (query[valid_query], path[:, valid_query])
    true_end = true_end if valid_end is None else true_end[valid_end]
    rows, columns, _ = first_frame.shape
    shape = aspect or columns / rows
    figure, (left, right) = sheet(1, 2, height=WIDTH / 2 / shape + 0.75)
    for axes, frame, title in ((left, first_frame, "first frame"), (right, last_frame, "last frame")):
        _show(axes, frame, shape, title)
    for start, track, colour in zip(
        query, rearrange(path, "f q xy -> q f xy"), palette(len(query)), strict=True
    ):
        dot = {**DOT, "color": colour, "markeredgecolor": "black"}
        left.plot(*start, **dot)
        right.plot(*track.T, **HALO)
        right.plot(*track.T, color=colour, linewidth=1.2)
        right.plot(*track[-1], **dot)
    for edge, width in (("black", 2.6), ("white", 1.3)):
        right.plot(*true_end.T, **RING, color=edge, markeredgewidth=width)
    right.set_ylabel("")
    right.tick_params(labelleft=False)
    # The legend is of no colour: a colour is one point.
    left.plot([], [], label="query point, predicted end", color=BASELINE_COLOUR, **DOT)
    left.plot([], [], label="predicted path", color=BASELINE_COLOUR, linewidth=1.2)
    left.plot([], [], label="true end", color=TRUTH_COLOUR, **RING)
    legend_above(figure, left)
    return photograph(figure)


def paths_on_frame(
    frame: UInt8[np.ndarray, "Y X 3"],
    paths: Float[np.ndarray, "n Q 2"],
    names: Sequence[str],
    *,
    title: str,
) -> bytes:
    """Points and where they go, on the frame in which they begin: a picture, PNG.

    Args:
        frame: RGB.
        paths: places of the points in pixels, in the order of time; a cross stands where they end.
        names: of the points, beside where they begin.
        title: above it.
    """
    rows, columns, _ = frame.shape
    figure, (axes,) = sheet(1, 1, height=WIDTH * rows / columns + 0.7)
    # The middle of a pixel is where its number is.
    axes.imshow(frame, extent=(-0.5, columns - 0.5, rows - 0.5, -0.5))
    for name, path, colour in zip(
        names, rearrange(paths, "n q xy -> q n xy"), palette(len(names)), strict=True
    ):
        axes.plot(*path.T, **HALO)
        axes.plot(*path.T, color=colour, linewidth=1.2)
        axes.plot(*path[0], **{**DOT, "color": colour, "markeredgecolor": "black"})
        axes.plot(*path[-1], marker="x", color=colour, markersize=6)
        box = {"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.5}
        axes.annotate(
            name, path[0], textcoords="offset points", xytext=(5, 5), fontsize=SMALL, color="white", bbox=box
        )  # fmt: skip
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xlabel="x (px)", ylabel="y (px)")
    axes.set_title(title, loc="left", fontsize=SMALL + 1)
    return picture_file(figure)


def error_histogram(
    errors: Mapping[str, Float[np.ndarray, "_"]], baselines: Mapping[str, Float[np.ndarray, "_"]]
) -> str:
    """How many points are how far off, and the share of points within each distance.

    The legend gives the accuracy: the mean of the five shares that are marked on the right.

    Args:
        errors: readout -> pixels at 1280 x 1024 from predicted to nearest true end point; infinite where
            a video has no true end point.
        baselines: baseline -> the same of its points.
    """
    figure, (counts, shares) = sheet(1, 2, height=2.9)
    distances, ticks = np.geomspace(EDGES[0], EDGES[-1], 200), (1, *THRESHOLDS, 256, 1024)
    colours = colours_of(errors)
    # The first baseline is number 0.
    for number, (name, off) in enumerate([*errors.items(), *baselines.items()], start=-len(errors)):
        within = within_thresholds(off)
        label = f"{name}  {within.mean():.3f}"
        style = as_readout(label, colours[name]) if number < 0 else as_baseline(label, number)
        _histogram(counts, off, style)
        share = np.searchsorted(np.sort(off), distances, side="right") / max(1, len(off))
        shares.plot(distances, 100 * share, **style)
        shares.plot(THRESHOLDS, 100 * within, "o", color=style["color"], markersize=3.5)
    for axes in (counts, shares):
        axes.set(xscale="log", xlim=(EDGES[0], EDGES[-1]), xlabel="error (px at 1280 x 1024)")
        for threshold in THRESHOLDS:
            axes.axvline(threshold, color=GUIDE_COLOUR, linewidth=1, zorder=0)
        axes.set_xticks(ticks, list(map(str, ticks)))
        axes.minorticks_off()
    counts.set(ylabel="points (%)")
    shares.set(ylabel="points no further off (%)", ylim=(0, 102))
    legend_above(figure, shares, title="accuracy")
    return svg(figure)


def within_thresholds(errors: Float[np.ndarray, "n"]) -> Float[np.ndarray, "thresholds"]:
    """The share of points that are off by no more than each of `THRESHOLDS`; 0 of no points."""
    shares: np.ndarray = (errors[:, None] <= np.array(THRESHOLDS)).sum(axis=0) / max(1, len(errors))
    return shares


def _show(axes: Axes, frame: UInt8[np.ndarray, "Y X 3"], shape: float, title: str) -> None:
    axes.imshow(frame, extent=(0, 1, 1, 0), aspect=1 / shape)
    axes.set(title=title, xlim=(0, 1), ylim=(1, 0))
    for ticks in (axes.set_xticks, axes.set_yticks):
        ticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set(xlabel="x (share of width)", ylabel="y (share of height)")


def _histogram(axes: Axes, errors: Float[np.ndarray, "n"], style: Style) -> None:
    counts, _ = np.histogram(errors.clip(EDGES[0], EDGES[-1]), EDGES)
    axes.stairs(100 * counts / max(1, len(errors)), EDGES, **style)
