"""The first table of the page: models by tasks, grouped by what was trained, ours above the published."""

from collections.abc import Sequence
from dataclasses import dataclass

from featcache.manifest import ModelKind
from readouts.results.configurations import Configuration, of_kind
from readouts.results.formatting import counted, format_interval, format_mean, format_score, format_tuned
from readouts.results.published import KINDS, figures_of, models_of
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
    """Whether no other of ours in the group is better on the task."""
    others: Sequence[str] = ()
    """Of a published model what other tables and splits say, a line each."""


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
class Group:
    """Rows that may be compared with each other: of models of which the same was trained."""

    title: str
    ours: Sequence[BackboneScores]
    published: Sequence[BackboneScores]


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """The table: models by what was trained of them, and the tasks' best baselines."""

    groups: Sequence[Group]
    baselines: BackboneScores

    @property
    def has_published(self) -> bool:
        """Whether any row is not ours."""
        return any(group.published for group in self.groups)


def overview(tasks: Sequence[TaskResults]) -> Overview:
    """Every backbone's configuration that is best on val, and its test score (val where test is missing)."""
    baselines = [_best_baseline(task) for task in tasks]
    groups = [
        Group(
            title=title,
            ours=_ours(kind, tasks),
            published=[
                BackboneScores(name=name, scores=[_published(task, name, kind) for task in tasks])
                for name in models_of((task.published for task in tasks), kind)
            ],
        )
        for kind, title in KINDS.items()
    ]
    return Overview(
        groups=[group for group in groups if group.ours or group.published],
        baselines=BackboneScores(name="no features", title="the best baseline", scores=baselines),
    )


def _ours(kind: ModelKind, tasks: Sequence[TaskResults]) -> list[BackboneScores]:
    of_tasks = [of_kind(kind, task.configurations) for task in tasks]
    lines = []
    for name in sorted({str(one.best["backbone"]) for found in of_tasks for one in found}):
        of_name = [[one for one in found if one.best["backbone"] == name] for found in of_tasks]
        about = next(ours[0].best for ours in of_name if ours)
        scores = [
            _score(task, ours, found[0]) if ours else None
            for task, ours, found in zip(tasks, of_name, of_tasks, strict=True)
        ]
        title, control = str(about["backbone_title"]), str(about["control"] or "")
        lines.append(BackboneScores(name=name, title=title, control=control, scores=scores))
    return lines


def _score(task: TaskResults, ours: Sequence[Configuration], best: Configuration) -> TaskScore:
    """The first of one backbone's configurations, which come the best on val first; `best` is the group's."""
    chosen = ours[0]
    ours = [one for one in ours if one.rank == chosen.rank]
    readout = ", ".join(filter(None, (str(chosen.best["readout"]), format_tuned(chosen.best))))
    if chosen.rank != task.best.rank:
        readout += f", val data {chosen.marks['val data']}, not that of the best"
    role = task.role if chosen.scores(task.role) else "val"
    return TaskScore(
        score=format_mean(chosen, role) or "",
        interval=format_interval(task.interval(chosen.rows, role), chosen.mean(role)),
        readout=readout if role == task.role else f"on {role}, {readout}",
        tried=f"best of {len(ours)}" if len(ours) > 1 else counted(len(chosen.rows), "run"),
        best=chosen is best,
    )


def _best_baseline(task: TaskResults) -> TaskScore | None:
    scores = {name: of[task.role] for name, of in task.baseline_scores().items() if task.role in of}
    if not scores:
        return None
    name = (max if task.higher_is_better else min)(scores, key=lambda one: scores[one])
    return TaskScore(score=format_score(scores[name]), readout=name)


def _published(task: TaskResults, model: str, kind: ModelKind) -> TaskScore | None:
    """The figure of the split that is reported, or what there is; the others are named below it."""
    found = figures_of(model, kind, task.published, role=task.role, higher_is_better=task.higher_is_better)
    if not found:
        return None
    first, *others = found
    on = first.split if first.row.split == "unsaid" else f"on {first.split}"
    return TaskScore(
        score=first.value,
        readout=", ".join(filter(None, ("" if first.split == task.role else on, first.row.readout))),
        others=[
            f"{one.value}: {one.split}" + (f", {one.source}" if one.source != first.source else "")
            for one in others
        ],
    )
