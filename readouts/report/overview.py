"""The first table of the page: backbones by tasks, ours above the published ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from readouts.results.configurations import Configuration
from readouts.results.formatting import counted, format_interval, format_mean, format_published, format_score
from readouts.results.task_results import TaskResults


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScore:
    """One backbone on one task, as the table has it."""

    score: str
    interval: str = ""
    readout: str = ""
    tried: str = ""
    """How many configurations this one was chosen from."""
    best: bool = False
    """Whether no other of ours is better on the task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneScores:
    """One row of the table."""

    name: str
    title: str = ""
    """What the name stands for."""
    control: str = ""
    """Why the backbone is a control; empty where it is none."""
    scores: Sequence[TaskScore | None]
    """One for each task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """The table: our backbones, the tasks' best baselines, the published backbones."""

    ours: Sequence[BackboneScores]
    baselines: BackboneScores
    published: Sequence[BackboneScores]


def overview(tasks: Sequence[TaskResults]) -> Overview:
    """Every backbone's configuration that is best on val, and its test score (val where test is missing)."""
    baselines = [_best_baseline(task) for task in tasks]
    published = dict.fromkeys(row.backbone for task in tasks for row in task.published.rows)
    return Overview(
        ours=[
            _ours(name, tasks) for name in sorted({str(r["backbone"]) for task in tasks for r in task.rows})
        ],
        baselines=BackboneScores(name="no features", title="the best baseline", scores=baselines),
        published=[
            BackboneScores(name=name, scores=[_best_published(task, name) for task in tasks])
            for name in published
        ],
    )


def _ours(name: str, tasks: Sequence[TaskResults]) -> BackboneScores:
    found = [[one for one in task.configurations if one.best["backbone"] == name] for task in tasks]
    about = next(ours[0].best for ours in found if ours)
    return BackboneScores(
        name=name,
        title=str(about["backbone_title"]),
        control=str(about["control"] or ""),
        scores=[_score(task, ours) if ours else None for task, ours in zip(tasks, found, strict=True)],
    )


def _score(task: TaskResults, ours: Sequence[Configuration]) -> TaskScore:
    """The first of one backbone's configurations, which come the best on val first."""
    chosen = ours[0]
    ours = [one for one in ours if one.rank == chosen.rank]
    readout = str(chosen.best["readout"])
    if chosen.rank != task.best.rank:
        readout += f", val data {chosen.marks['val data']}, not that of the best"
    role = task.role if chosen.scores(task.role) else "val"
    return TaskScore(
        score=format_mean(chosen, role) or "",
        interval=format_interval(task.interval(chosen.rows, role), chosen.mean(role)),
        readout=readout if role == task.role else f"on {role}, {readout}",
        tried=f"best of {len(ours)}" if len(ours) > 1 else counted(len(chosen.rows), "run"),
        best=chosen is task.best,
    )


def _best_baseline(task: TaskResults) -> TaskScore | None:
    scores = {name: of[task.role] for name, of in task.baseline_scores().items() if task.role in of}
    if not scores:
        return None
    name = (max if task.higher_is_better else min)(scores, key=lambda one: scores[one])
    return TaskScore(score=format_score(scores[name]), readout=name)


def _best_published(task: TaskResults, backbone: str) -> TaskScore | None:
    rows = [row for row in task.published.rows if row.backbone == backbone]
    if not rows:
        return None
    best = (max if task.higher_is_better else min)(rows, key=lambda row: row.value)
    return TaskScore(score=format_published(best.value), readout=best.readout)
