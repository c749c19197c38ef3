"""The first table of the page: backbones by tasks, ours above the published ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featcache.manifest import PublishedResult
from readouts.bootstrap import Interval
from readouts.standings import Row, by_backbone, ranked, written
from readouts.task_results import TaskResults


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One backbone on one task."""

    score: str
    interval: str = ""
    readout: str = ""
    tried: str = ""
    """How many rows this one was chosen from."""
    best: bool = False
    """Of the column's own rows."""


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
    control: Line
    published: Sequence[Line]


def overview(tasks: Sequence[TaskResults]) -> Overview:
    """Every backbone's row that is best on val, with what it scored on test (val where test is missing)."""
    return Overview(
        tasks=[
            {
                "name": task.name,
                "title": task.title,
                "metric": task.metric,
                "better": "higher is better" if task.higher_is_better else "lower is better",
                "role": task.role,
            }
            for task in tasks
        ],
        ours=_ours(tasks),
        control=_control_line(tasks),
        published=_published(tasks),
    )


def _ours(tasks: Sequence[TaskResults]) -> list[Line]:
    rows = {task.name: by_backbone(task.rows) for task in tasks}
    names = sorted({name for of_task in rows.values() for name in of_task})
    lines = []
    for name in names:
        found = [rows[task.name].get(name) for task in tasks]
        about = next(of_task[0] for of_task in found if of_task)
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


def _cell(task: TaskResults, rows: Sequence[Row]) -> Cell:
    best = ranked(rows)[0]
    role = task.role if best[task.role] is not None else "val"
    return Cell(
        score=written(best[role]) or "",
        interval=bracketed(task.interval(best, role)),
        readout=str(best["readout"]) if role == task.role else f"on {role}, {best['readout']}",
        tried=f"best of {len(rows)}" if len(rows) > 1 else "1 run",
        best=best is task.best,
    )


def bracketed(interval: Interval | None) -> str:
    """`[low, high]`; empty where there is none."""
    return "" if interval is None else f"[{written(interval.low)}, {written(interval.high)}]"


def _control_line(tasks: Sequence[TaskResults]) -> Line:
    """Each task's best control that needs no features."""
    cells: list[Cell | None] = []
    for task in tasks:
        scores = {name: of[task.role] for name, of in task.control_scores().items() if task.role in of}
        name = _best(task)(scores, key=lambda one: scores[one]) if scores else None
        cells.append(None if name is None else Cell(score=written(scores[name]) or "", readout=name))
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
    return Cell(score=written(best.value) or "", readout=best.readout)
