"""The first table of the page: backbones by tasks, ours above the published ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featcache.manifest import PublishedResult
from readouts.results.configurations import Configuration
from readouts.results.formatting import counted, format_interval, format_mean, format_published, format_score
from readouts.results.task_results import TaskResults


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One backbone on one task."""

    score: str
    interval: str = ""
    readout: str = ""
    tried: str = ""
    """How many configurations this one was chosen from."""
    best: bool = False
    """Of the column's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of the matrix."""

    name: str
    title: str
    """What the name stands for."""
    control: str
    """Why it is a control; empty where it is none."""
    cells: Sequence[Cell | None]
    """One a task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """The matrix."""

    tasks: Sequence[Mapping[str, str]]
    """Name, title, metric, direction and split of each column."""
    ours: Sequence[Line]
    baseline: Line
    published: Sequence[Line]


def overview(tasks: Sequence[TaskResults]) -> Overview:
    """Every backbone's configuration that is best on val, and its test score (val where test is missing)."""
    return Overview(
        tasks=[
            {
                "name": task.name,
                "title": task.title,
                "metric": task.metric_title,
                "better": task.better,
                "role": task.role,
            }
            for task in tasks
        ],
        ours=_ours(tasks),
        baseline=_baseline_line(tasks),
        published=_published(tasks),
    )


def _ours(tasks: Sequence[TaskResults]) -> list[Line]:
    lines = []
    for name in sorted({str(row["backbone"]) for task in tasks for row in task.rows}):
        found = [[one for one in task.configurations if one.best["backbone"] == name] for task in tasks]
        about = next(ours[0].best for ours in found if ours)
        cells = [_cell(task, ours) if ours else None for task, ours in zip(tasks, found, strict=True)]
        lines.append(
            Line(
                name=name,
                title=str(about["backbone_title"]),
                control=str(about["control"] or ""),
                cells=cells,
            )
        )
    return lines


def _cell(task: TaskResults, ours: Sequence[Configuration]) -> Cell:
    """Of the configurations of one backbone, the best on val first."""
    chosen, readout = ours[0], str(ours[0].best["readout"])
    role = task.role if chosen.scores(task.role) else "val"
    return Cell(
        score=format_mean(chosen, role) or "",
        interval=format_interval(task.interval(chosen.rows, role), chosen.mean(role)),
        readout=readout if role == task.role else f"on {role}, {readout}",
        tried=f"best of {len(ours)}" if len(ours) > 1 else counted(len(chosen.rows), "run"),
        best=chosen is task.best,
    )


def _baseline_line(tasks: Sequence[TaskResults]) -> Line:
    """Each task's best baseline."""
    cells: list[Cell | None] = []
    for task in tasks:
        scores = {name: of[task.role] for name, of in task.baseline_scores().items() if task.role in of}
        name = _best(task)(scores, key=lambda one: scores[one]) if scores else None
        cells.append(None if name is None else Cell(score=format_score(scores[name]), readout=name))
    return Line(name="no features", title="the best control row", control="", cells=cells)


def _best(task: TaskResults) -> Any:
    """`max` or `min`, whichever way the score goes."""
    return max if task.higher_is_better else min


def _published(tasks: Sequence[TaskResults]) -> list[Line]:
    names = dict.fromkeys(row.backbone for task in tasks for row in task.published.rows)
    return [
        Line(name=name, title="", control="", cells=[_published_cell(task, name) for task in tasks])
        for name in names
    ]


def _published_cell(task: TaskResults, backbone: str) -> Cell | None:
    rows = [row for row in task.published.rows if row.backbone == backbone]
    if not rows:
        return None
    best: PublishedResult = _best(task)(rows, key=lambda row: row.value)
    return Cell(score=format_published(best.value), readout=best.readout)
