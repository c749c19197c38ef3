"""The study of robustness on the page: a curve a corruption, severity along the bottom, and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from featcache.spec import SEVERITIES, Corruption
from readouts.report import figures
from readouts.report.figures import SweepCurve, SweepPoint
from readouts.results.formatting import format_score
from readouts.results.task_results import TaskResults

Line = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class RobustnessPanel:
    """One readout of one task under every corruption."""

    title: str
    image: str
    spots: Sequence[figures.Spot]
    """The figure's points, which tell their numbers."""
    score: str
    """What the scores are called, with their split and direction."""
    severities: Sequence[int]
    table: Sequence[Mapping[str, Any]]
    """A row a corruption: the amounts of its severities; for each the mean over seeds, and what changed."""
    seeds: int


def robustness_panels(task: TaskResults, lines: Sequence[Line]) -> list[RobustnessPanel]:
    """A panel for each readout of the task that a sweep's `lines` have scores of under a corruption."""
    runs = {str(row["run"]) for row in task.rows}
    ours = [line for line in lines if line["run"] in runs]
    panels = []
    for readout in dict.fromkeys(line["readout"] for line in ours):
        of_readout = [line for line in ours if line["readout"] == readout]
        if any(line["severity"] for line in of_readout):
            panels.append(_panel(task, str(readout), of_readout))
    return panels


def _panel(task: TaskResults, readout: str, lines: Sequence[Line]) -> RobustnessPanel:
    role = str(lines[0]["role"])
    clean = _scores(lines, "", 0)
    kinds = [kind for kind in SEVERITIES if any(line["corruption"] == kind for line in lines)]
    severities = sorted({int(line["severity"]) for line in lines if line["severity"]})
    curves = [
        SweepCurve(
            label=kind,
            readout=readout,
            points=tuple(
                SweepPoint(at=severity, scores=tuple(scores))
                for severity in (0, *severities)
                if (scores := clean if severity == 0 else _scores(lines, kind, severity))
            ),
        )
        for kind in kinds
    ]
    name = f"{task.metric_title} on {role}"
    image, spots = figures.sweep_curves(
        curves,
        axis="severity (0: as filmed)",
        score=f"{name}\n({task.better})",
        baselines={of: found[role] for of, found in task.baseline_scores().items() if role in found},
        banded=False,
    )
    return RobustnessPanel(
        title=f"{task.title}, {readout}",
        image=image,
        spots=spots,
        score=f"{name}, {task.better}; as filmed {_mean(clean)}",
        severities=severities,
        table=[
            {
                "corruption": kind,
                "amounts": ", ".join(f"{Corruption(kind, severity).amount:g}" for severity in severities),
                "cells": [_cell(kind, severity, lines, clean) for severity in severities],
            }
            for kind in kinds
        ],
        seeds=len(clean),
    )  # fmt: skip


def _cell(kind: str, severity: int, lines: Sequence[Line], clean: Sequence[float]) -> dict[str, str]:
    scores = _scores(lines, kind, severity)
    if not scores:
        return {"score": "", "change": ""}
    change = f"{fmean(scores) - fmean(clean):+.3f}" if clean else ""
    return {"score": format_score(fmean(scores)), "change": change}


def _scores(lines: Sequence[Line], kind: str, severity: int) -> list[float]:
    return [
        float(line["score"]) for line in lines if (line["corruption"], line["severity"]) == (kind, severity)
    ]


def _mean(scores: Sequence[float]) -> str:
    if not scores:
        return ""
    spread = f" ± {format_score(stdev(scores))}" if len(scores) > 1 else ""
    return f"{format_score(fmean(scores))}{spread}"
