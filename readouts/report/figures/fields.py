"""Fields on the globe: forecast, truth and errors a lead, on plain latitude and longitude."""

from collections.abc import Sequence
from math import copysign

import numpy as np
from jaxtyping import Float, Real

from readouts.report.figures.base import SMALL, Axes, Figure, Style, photograph, sheet

COLUMNS = ("truth", "forecast", "error", "persistence error")
VALUES, ERRORS = "viridis", "RdBu_r"
"""Colour maps: even steps of lightness, and red to blue through white; both hold for the colour-blind."""
MISSING = "#c9ccd1"
STEPS = (1, 2, 5, 10, 20, 30, 60, 120)
"""Degrees between the numbers on an axis."""


def forecast_maps(
    last: Float[np.ndarray, "Y X"],
    predicted: Float[np.ndarray, "T Y X"],
    truth: Float[np.ndarray, "T Y X"],
    *,
    variable: str,
    unit: str,
    latitude: Float[np.ndarray, "Y"],
    longitude: Float[np.ndarray, "X"],
    leads: Sequence[int],
    hours: Sequence[float | int] | Real[np.ndarray, "T"],
) -> str:
    """A row a lead: truth, forecast, the forecast's error, and the error of persistence on the same scale.

    Args:
        last: the last input frame, which persistence repeats.
        predicted: the forecast, a map a lead.
        truth: what came, a map a lead.
        variable: its name, for the colour bar.
        unit: of all fields.
        latitude: degrees north of the cells' centres, evenly spaced, rising or falling.
        longitude: degrees east of them, evenly spaced.
        leads: which of the T leads to draw.
        hours: lead time of each of the T leads.
    """
    rows = [(truth[t], predicted[t], predicted[t] - truth[t], last - truth[t]) for t in leads]
    values = value_scale([field for row in rows for field in row[:2]])
    errors = error_scale([field for row in rows for field in row[2:]])
    extent = (*_edges(longitude), *_edges(latitude))
    figure, panels = sheet(len(rows), len(COLUMNS), height=0.85 * len(rows) + 1.1, width=7.0)
    figure.set_layout_engine("compressed")  # maps keep their shape: no gaps between them
    grouped = [panels[i : i + len(COLUMNS)] for i in range(0, len(panels), len(COLUMNS))]
    for lead, row, fields in zip(leads, grouped, rows, strict=True):
        for axes, field, scale in zip(row, fields, (values, values, errors, errors), strict=True):
            axes.set_facecolor(MISSING)
            # Averaged when it shrinks: neighbouring cells are all seen.
            shown = {"extent": extent, "interpolation": "antialiased", **scale}
            axes.imshow(upright(field, latitude, longitude), **shown)
            axes.set_xticks(*_ticks(*extent[:2], "EW"))
            axes.set_yticks(*_ticks(*extent[2:], "NS"))
            axes.tick_params(labelleft=axes is row[0], labelbottom=row is grouped[-1])
        row[0].set_ylabel(f"{_lead_time(float(hours[lead]))}\nlatitude")
    for axes, title in zip(grouped[0], COLUMNS, strict=True):
        axes.set_title(title, fontsize=SMALL)
    for axes in grouped[-1]:
        axes.set_xlabel("longitude")
    _colour_bar(figure, [axes for row in grouped for axes in row[:2]], f"{variable} ({unit})")
    _colour_bar(figure, [axes for row in grouped for axes in row[2:]], f"forecast - truth ({unit})")
    return photograph(figure)


def upright(
    field: Float[np.ndarray, "Y X"], latitude: Float[np.ndarray, "Y"], longitude: Float[np.ndarray, "X"]
) -> Float[np.ndarray, "Y X"]:
    """The field with its northernmost row first and its westernmost column first."""
    turned: np.ndarray = field[np.ix_(np.argsort(-latitude), np.argsort(longitude))]
    return turned


def value_scale(fields: Sequence[Float[np.ndarray, "Y X"]]) -> Style:
    """Colours from the 0.5th to the 99.5th percentile of all fields together."""
    low, high = np.nanpercentile(np.stack(fields), [0.5, 99.5]).tolist()
    return {"cmap": VALUES, "vmin": low, "vmax": high if high > low else low + 1}


def error_scale(fields: Sequence[Float[np.ndarray, "Y X"]]) -> Style:
    """Colours as far below 0 as above, to the 99th percentile of the errors' size."""
    size = float(np.nanpercentile(np.abs(np.stack(fields)), 99)) or 1.0
    return {"cmap": ERRORS, "vmin": -size, "vmax": size}


def _colour_bar(figure: Figure, panels: list[Axes], name: str) -> None:
    image = panels[0].get_images()[0]
    bar = figure.colorbar(
        image, ax=panels, location="bottom", extend="both", fraction=0.06, aspect=32, pad=0.02
    )
    bar.set_label(name, size=SMALL + 0.5)
    bar.ax.tick_params(labelsize=SMALL)
    bar.ax.locator_params(nbins=5)
    bar.ax.ticklabel_format(style="sci", scilimits=(-2, 5), useMathText=True)


def _ticks(low: float, high: float, letters: str) -> tuple[list[float], list[str]]:
    """Three or four round numbers of degrees within the axis, and how maps write them."""
    step = next((step for step in STEPS if (high - low) / step < 4), STEPS[-1])
    degrees = [float(d) for d in range(-360, 361, step) if low <= d <= high]
    return degrees, [_degrees(d, letters) for d in degrees]


def _degrees(degrees: float, letters: str) -> str:
    """0\N{DEGREE SIGN}, 45\N{DEGREE SIGN}N, 90\N{DEGREE SIGN}W; a longitude beyond 180 is one of the west."""
    turned = degrees if abs(degrees) <= 180 else degrees - copysign(360, degrees)
    letter = "" if turned % 180 == 0 else letters[turned < 0]
    return f"{abs(turned):g}\N{DEGREE SIGN}{letter}"


def _edges(centres: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """The ends of an axis: half a cell beyond the outer centres."""
    half = (float(np.ptp(centres)) / max(1, len(centres) - 1) or 1.0) / 2
    return float(centres.min()) - half, float(centres.max()) + half


def _lead_time(hours: float) -> str:
    """`12 h`, and days from the second on."""
    return f"{hours:g} h" if hours < 48 or hours % 24 else f"{hours / 24:g} d"
