"""How well each class is found: precision against recall."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Integer

from readouts.metrics.average_precision import average_precision
from readouts.report.figures.base import SMALL, as_baseline, as_readout, colours_of, sheet, svg

MAX_PANELS = 8
RECALLS = np.linspace(0, 1, 101)
"""Where a curve is drawn: one of 76,585 clips has as many corners, and nobody sees them."""


def precision_recall(
    scores: Mapping[str, Float[np.ndarray, "clips O"]],
    labels: Integer[np.ndarray, "clips O"],
    names: Sequence[str],
) -> str:
    """A panel a class, a curve a readout; the legend gives the average precision of the results table.

    The dotted line is the share of clips that carry the class: what label frequencies alone would reach.

    Args:
        scores: readout -> its outputs, raw or through a sigmoid: only their order counts.
        labels: multi-hot.
        names: of the classes; the first `MAX_PANELS` are drawn, and the figure says if that is not all.
    """
    n_shown = min(len(names), MAX_PANELS)
    n_columns = 2 if n_shown in (2, 4) else min(n_shown, 3)
    n_rows = -(-n_shown // n_columns)
    figure, panels = sheet(n_rows, n_columns, height=2.3 * n_rows + 0.3)
    averages = {readout: average_precision(outputs, labels) for readout, outputs in scores.items()}
    colours = colours_of(scores)
    for i, axes in enumerate(panels[:n_shown]):
        axes.set_gid(f"class-{i}")
        any_positive = bool(labels[:, i].any())
        # Without a clip of the class there is no curve, but its line in the legend.
        recalls = RECALLS if any_positive else RECALLS[:0]
        for readout, outputs in scores.items():
            precisions = precision_at(recalls, outputs[:, i], labels[:, i]) if any_positive else recalls
            line = as_readout(f"{readout}  AP {averages[readout][i]:.2f}", colours[readout])
            # The steps that average precision sums up: each recall has the precision of the next corner.
            axes.plot(recalls, precisions, drawstyle="steps-pre", **line)
        if not any_positive:
            axes.text(0.5, 0.5, "no clip of this class", ha="center", va="center", fontsize=SMALL)
        rate = float((labels[:, i] > 0).mean())
        axes.axhline(rate, **as_baseline(f"positive rate  {rate:.2g}"))
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        # Above the panel: inside it a legend would lie on the curves of one class or another.
        axes.legend(frameon=False, fontsize=SMALL - 0.5, loc="lower left", bbox_to_anchor=(-0.04, 0.98),
                    labelspacing=0.15, handlelength=1.4, borderpad=0.2, title=names[i], alignment="left",
                    title_fontproperties={"weight": "bold", "size": SMALL})  # fmt: skip
    for axes in panels[n_shown:]:
        axes.remove()
    left_out = f", the first {n_shown} of {len(names)} classes" if n_shown < len(names) else ""
    figure.supxlabel(f"recall (0 to 1){left_out}", fontsize=SMALL + 0.5)
    figure.supylabel("precision (0 to 1)", fontsize=SMALL + 0.5)
    return svg(figure)


def precision_at(
    recalls: Float[np.ndarray, "R"], scores: Float[np.ndarray, "clips"], labels: Integer[np.ndarray, "clips"]
) -> Float[np.ndarray, "R"]:
    """Precision at the first threshold that reaches each recall; at recall 0 that of the best-scored clips.

    Clips of one score are one threshold, as in `average_precision`. `labels` must hold a positive one.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(labels[order] > 0)[ends]
    # A recall of k / n is reached by k hits, whatever its last binary digit.
    first = np.searchsorted(hits, recalls * hits[-1] - 1e-6)
    precisions: np.ndarray = (hits / (ends + 1))[first]
    return precisions
