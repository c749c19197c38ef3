"""Which class is taken for which: true ones down, said ones along, shares of each true class."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from readouts.report.figures.base import SMALL, TRUTH_COLOUR, sheet, svg

LARGEST = 14
"""Classes beyond which counts would not be read any more, and are left out."""


def confusion_matrix(counts: Integer[np.ndarray, "n n"], names: Sequence[str]) -> str:
    """A square a pair of classes, dark where much of the true class went; the counts are written in it.

    Args:
        counts: true class by row, said class by column.
        names: of the classes.
    """
    n = len(names)
    side = min(6.4, 1.7 + 0.62 * n)
    figure, (axes,) = sheet(1, 1, height=side * 0.86, width=side)
    total = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(total, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= LARGEST:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.55 else TRUTH_COLOUR
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=SMALL, color=colour)
    axes.set_xticks(range(n), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(n), names)
    axes.set(xlabel="said", ylabel="true")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return svg(figure)
