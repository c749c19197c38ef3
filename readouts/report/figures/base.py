"""What all figures share: colours, sheets of axes, `data:` addresses. The one file that imports matplotlib.

A sheet is about `WIDTH` inches wide and its letters no smaller than `SMALL`, so that the page may shrink it
to a telephone's width and it can still be read.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes as Axes
from matplotlib.figure import Figure as Figure
from matplotlib.lines import Line2D as Line2D
from PIL import Image

Style = dict[str, Any]
"""How a line is drawn, in the words of matplotlib."""
COLOURS = {"attention": "#0b6e8f", "linear": "#c4661f", "tracking": "#5b1a6e", "dpt": "#2f3f9e"}
"""A readout's colour, the same in all figures and on the page; told apart by the colour-blind too."""
BASELINE_COLOUR = "#5b5f66"
TRUTH_COLOUR = "#1d2126"
GUIDE_COLOUR = "#dfe2e6"
"""The colour of lines that only mark a position on an axis."""
SPARE_COLOURS = ("#53a674", "#592d04", "#3370cc")
"""Colours of readouts that are not in `COLOURS`, in the order in which they come."""

WIDTH = 6.4
"""Width of a sheet of several panels, in inches."""
SMALL = 9
"""Size of numbers on axes and of legends, in points; titles and names of axes are larger."""
MAX_JPEG_BYTES = 180_000
"""A quarter of a megabyte once it is written in base 64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """A point of a figure that tells its numbers to whoever points at it."""

    left: float
    """Per cent of the figure's width."""
    top: float
    text: str


Told = tuple[Axes, float, float, str]
"""Axes, a point on them, and what it tells."""


def spots_of(figure: Figure, told: Iterable[Told]) -> list[Spot]:
    """Where the points lie on the finished figure."""
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    found = []
    for axes, x, y, text in told:
        left, bottom = axes.transData.transform((x, y))
        found.append(
            Spot(left=round(100 * left / width, 2), top=round(100 - 100 * bottom / height, 2), text=text)
        )
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFigure:
    """One figure of the page."""

    title: str
    image: str
    """A `data:` address."""
    caption: str = ""
    wide: bool = False
    """Whether it scrolls on a telephone rather than shrinking."""
    spots: Sequence[Spot] = ()


def colours_of(readouts: Iterable[str]) -> dict[str, str]:
    """Readout -> colour: its own where it has one, else a spare one."""
    spare = cycle(SPARE_COLOURS)
    return {name: COLOURS.get(name) or next(spare) for name in readouts}


def sheet(n_rows: int, n_columns: int, *, height: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """An empty figure, and its axes row by row.

    Args:
        n_rows: rows of axes.
        n_columns: columns of axes.
        height: inches.
        width: inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel().tolist()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=SMALL)
        axes.xaxis.label.set_size(SMALL + 0.5)
        axes.yaxis.label.set_size(SMALL + 0.5)
        axes.title.set_size(SMALL + 1)
    return figure, panels


def palette(n: int) -> list[tuple[float, ...]]:
    """`n` colours of single points, teal to yellow: none is as dark or as red as tissue."""
    return [tuple(colour) for colour in colormaps["viridis"](np.linspace(0.35, 1, n)).tolist()]


def as_readout(name: str, colour: str) -> Style:
    """The style of a readout's line."""
    return {"color": colour, "linewidth": 1.6, "label": name}


def as_baseline(name: str, number: int = 0) -> Style:
    """The style of a figure's baseline `number`: grey, the first dotted, others dashed."""
    dashes = (":", "--", "-.")[number % 3]
    return {"color": BASELINE_COLOUR, "linestyle": dashes, "linewidth": 1.5, "label": name}


def legend_above(figure: Figure, axes: Axes, title: str | None = None) -> None:
    """One legend for all panels, of what is drawn on `axes`, in one row where the sheet is wide enough."""
    handles, labels = axes.get_legend_handles_labels()
    # Inches: a letter of this size is 0.075 wide on average, a line and its margins half an inch.
    widths = [0.5 + 0.075 * len(label) for label in labels]
    fitting = (
        len(labels) if sum(widths) <= figure.get_figwidth() else int(figure.get_figwidth() / max(widths))
    )
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=max(1, fitting),
        frameon=False,
        fontsize=SMALL,
        title=title,
        title_fontsize=SMALL + 1,
    )


def svg(figure: Figure) -> str:
    """The `data:` address of a figure as SVG; the same figure gives the same bytes."""
    buffer = BytesIO()
    with rc_context({"svg.hashsalt": "scivid"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data(buffer.getvalue(), "image/svg+xml")


def picture_file(figure: Figure, dpi: int = 140) -> bytes:
    """A figure as the bytes of a PNG, the same for the same figure."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def photograph(figure: Figure, dpi: int = 180) -> str:
    """The `data:` address of a figure as JPEG, of the best quality that keeps it under `MAX_JPEG_BYTES`."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    image = Image.open(drawn).convert("RGB")
    for quality in (90, 80, 65, 45, 25):
        buffer = BytesIO()
        # Without subsampling: coloured letters and thin lines would smear.
        image.save(buffer, format="JPEG", quality=quality, subsampling=0, optimize=True)
        if buffer.tell() <= MAX_JPEG_BYTES:
            break
    return jpeg(buffer.getvalue())


def png(image: UInt8[np.ndarray, "Y X 3"], zoom: int = 1) -> str:
    """The `data:` address of an image as PNG, each pixel drawn as `zoom` by `zoom`."""
    rows, columns, _ = image.shape
    enlarged = Image.fromarray(image).resize((columns * zoom, rows * zoom), Image.Resampling.NEAREST)
    buffer = BytesIO()
    enlarged.save(buffer, format="PNG", optimize=True)
    return _data(buffer.getvalue(), "image/png")


def jpeg(data: bytes) -> str:
    """The `data:` address of a JPEG."""
    return _data(data, "image/jpeg")


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
