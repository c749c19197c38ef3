"""How a run went: loss and score against the step."""

from collections.abc import Mapping, Sequence
from typing import Any

from readouts.report.figures.base import (
    Spot,
    Style,
    Told,
    as_baseline,
    as_readout,
    colours_of,
    legend_above,
    sheet,
    spots_of,
    svg,
)


def curves(
    history: Sequence[Mapping[str, Any]], score: str, baselines: Mapping[str, float], *, title: str
) -> tuple[str, list[Spot]]:
    """Training loss and `score`, called `title`, against the step, a line a readout; baselines dotted.

    The line is the score over the first clips of val, always the same; dots are over the whole of it. Beside
    the figure come its points, with their numbers.
    """
    told = list[Told]()
    figure, (loss, quality) = sheet(1, 2, height=2.8)
    for readout, colour in colours_of(dict.fromkeys(row["readout"] for row in history)).items():
        rows = [row for row in history if row["readout"] == readout]
        style = as_readout(readout, colour)
        trained = [row for row in rows if row["train_loss"] is not None]
        # A single point is no line: it shows by its mark.
        mark: Style = {"marker": "o", "markersize": 3.5} if len(trained) == 1 else {}
        loss.plot([row["step"] for row in trained], [row["train_loss"] for row in trained], **style, **mark)
        quality.plot([row["step"] for row in rows], [row[score] for row in rows], **style)
        whole = [row for row in rows if f"val/{score}" in row]
        over_all = [row[f"val/{score}"] for row in whole]
        quality.plot([row["step"] for row in whole], over_all, "o", color=colour, markersize=3.5)
        for axes, name, key, of in (
            (loss, "loss", "train_loss", trained),
            (quality, title, score, rows),
            (quality, f"{title} on all of val", f"val/{score}", whole),
        ):
            told += [
                (
                    axes,
                    float(row["step"]),
                    row[key],
                    f"{readout}, step {row['step']:,}: {name} {row[key]:.4g}",
                )
                for row in of
            ]
    for number, (name, value) in enumerate(baselines.items()):
        quality.axhline(value, **as_baseline(name, number))
    loss.set(xlabel="step", ylabel="training loss")
    quality.set(xlabel="step", ylabel=f"{title} on val")
    legend_above(figure, quality)
    return svg(figure), spots_of(figure, told)
