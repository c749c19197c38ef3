"""One task on the page: configurations, differences, baselines, curves, figures, clips, commands."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from readouts.report import figures
from readouts.report.behaviours import Behaviours, behaviours_of
from readouts.report.gaps import Gaps, pictures_of
from readouts.report.task_figures import EvaluatedRun, figures_of
from readouts.results.comparability import Row, identity_text
from readouts.results.configurations import Configuration, of_kind
from readouts.results.formatting import (
    configuration_cells,
    counted,
    format_interval,
    format_score,
    metric_title,
)
from readouts.results.published import KINDS, Figure, by_kind, figure_of
from readouts.results.run_folder import RunFolder, read_whole_curve
from readouts.results.task_results import TaskResults, stores_of
from readouts.tasks.base import Task

CLIPS_SHOWN = 6
CURVES_SHOWN = 4
CONFIGURATIONS_SHOWN = 8
"""And the best of every other backbone and readout; a sweep has a figure of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreGroup:
    """Rows that may be compared with each other: the same was trained."""

    title: str
    ours: Sequence[Mapping[str, Any]]
    """The cells of configurations."""
    published: Sequence[Figure]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSection:
    """What the page shows of one task, in the order of the page."""

    results: TaskResults
    problem: str | None
    """Why only the scores are shown."""
    missing: Sequence[str]
    """What else is not shown, and why."""
    groups: Sequence[ScoreGroup]
    n_left_out: int
    """How many configurations are in none of them."""
    independent: str
    """What the intervals take as independent; empty where there are no intervals."""
    no_intervals: str
    """Why a score has no interval; empty where all have."""
    differences: Sequence[Mapping[str, str]]
    curves: Sequence[figures.PageFigure]
    run_name: str
    """The best run that kept its predictions; figures and clips are of it."""
    figures: Sequence[figures.PageFigure]
    clips: Sequence[Mapping[str, Any]]
    """For each its frames, true labels, and predictions of the run's readouts."""
    colours: Mapping[str, str]
    """Readouts of the clips -> colour of their bars."""
    behaviours: Behaviours | None
    """F1, confusion, bouts and the worst clips, of a task of classes."""
    commands: Sequence[Mapping[str, str]]


def task_section(results: TaskResults, results_dir: Path) -> TaskSection:
    """Everything of one task; what cannot be read is skipped and named."""
    every, gaps = results.configurations, Gaps()
    drawn: Sequence[figures.PageFigure] = []
    clips: Sequence[Mapping[str, Any]] = []
    curves: Sequence[figures.PageFigure] = _curves(results, results_dir, gaps)
    run = _evaluated_run(results, results_dir, gaps)
    behaviours = behaviours_of(results, results_dir, gaps)
    if run is not None and results.task is not None:
        with gaps.around(f"pictures of {results.title}"):
            drawn = figures_of(results.task, run)
        with gaps.around(f"clips of {results.title}"):
            clips = _clips(run, results.task)
    shown = _shown(every)
    intervals = [found for one in shown if (found := results.interval(one.rows, results.role))]
    differences = _differences(results)
    refusals = results.intervals.refusals if results.intervals else []
    for damaged in results.intervals.damaged if results.intervals else []:
        gaps.add(damaged)
    return TaskSection(
        results=results,
        problem=results.problem,
        missing=gaps.messages,
        groups=_groups(results, shown),
        n_left_out=len(every) - len(shown),
        independent="; ".join(filter(None, [intervals[0].clusters, intervals[0].caution]))
        if intervals
        else "",
        no_intervals=refusals[0].removeprefix("no interval: ") if refusals else "",
        differences=differences,
        curves=curves,
        run_name="" if run is None else _run_name(run.row),
        figures=drawn,
        clips=clips,
        colours={} if run is None else figures.colours_of(run.outputs),
        behaviours=behaviours,
        commands=_commands(results),
    )


def _groups(results: TaskResults, shown: Sequence[Configuration]) -> list[ScoreGroup]:
    found = by_kind(results.published)
    groups = [
        ScoreGroup(
            title=title,
            ours=[_cells(results, one) for one in of_kind(kind, shown)],
            published=[figure_of(row, results.published) for row in found.get(kind, ())],
        )
        for kind, title in KINDS.items()
    ]
    return [group for group in groups if group.ours or group.published]


def _shown(every: Sequence[Configuration]) -> list[Configuration]:
    """The best ones, and the best of each backbone and readout that is not among them."""
    found: set[tuple[str, str]] = set()
    shown = []
    for rank, one in enumerate(every):
        what = (one.best["backbone"], one.best["readout"])
        if rank < CONFIGURATIONS_SHOWN or what not in found:
            shown.append(one)
        found.add(what)
    return shown


def _cells(results: TaskResults, one: Configuration) -> dict[str, Any]:
    """The cells of `configuration_cells`, and intervals beside them."""
    intervals = {
        f"{role}_interval": format_interval(results.interval(one.rows, role), one.mean(role))
        for role in ("val", "test")
    }
    return {**configuration_cells(one), **intervals, "control": one.best["control"]}


def _differences(results: TaskResults) -> list[dict[str, str]]:
    """The best against the second and the best other control of its kind, and against the best of another."""
    first, *_ = results.configurations
    every = of_kind(first.kind, results.configurations)
    controls = (o for o in every if o.best["control"] and o.best["backbone"] != first.best["backbone"])
    control = next(controls, None)
    compared = [("the second", second) for second in every[1:2]]
    if control is not None and control is not every[1]:
        compared.append(("the best control backbone", control))
    for kind, title in KINDS.items():
        if kind != first.kind:
            compared += [(f"the best of {title}", one) for one in of_kind(kind, results.configurations)[:1]]
    found = []
    for what, other in compared:
        if (difference := results.difference(first.rows, other.rows)) is not None:
            row, seeds = other.best, counted(len(other.rows), "seed")
            found.append(
                {
                    "what": f"{what}, a control ({row['control']})" if other is control else what,
                    "other": f"{row['backbone']}, layer {row['layer']}, {row['readout']}, {seeds}",
                    "value": f"{difference.value:+.3g}",
                    "interval": f"[{difference.interval.low:+.3g}, {difference.interval.high:+.3g}]",
                    "verdict": "clear" if difference.is_clear else "could be luck",
                }
            )
    return found


def _run_name(row: Row) -> str:
    return f"{row['backbone']}, layer {row['layer']}, seed {row['seed']}"


def _curves(results: TaskResults, results_dir: Path, gaps: Gaps) -> list[figures.PageFigure]:
    """The curve of the best run of each backbone that has one (a probe has none), the best ones first."""
    levels = {name: of["val"] for name, of in results.baseline_scores().items() if "val" in of}
    shown: dict[str, figures.PageFigure] = {}
    for row in (one.best for one in results.configurations):
        if not row["steps"] or row["backbone"] in shown or len(shown) == CURVES_SHOWN:
            continue
        folder = RunFolder.of(results_dir, row)
        if not folder.path.is_dir():  # all of it was deleted: a run is still a row and a command
            continue
        with gaps.around(f"curve of {_run_name(row)}"):
            curve = read_whole_curve(folder.curve, row["steps"])
            image = figures.curves(curve, row["metric"], levels, title=metric_title(row["metric"]))
            shown[row["backbone"]] = figures.PageFigure(title=_run_name(row), image=image)
    return list(shown.values())


def _commands(results: TaskResults) -> list[dict[str, str]]:
    """The command of each run once, with the rows that it made, and why it would not make them again."""
    made: dict[str, list[Row]] = {}
    marks: dict[str, Mapping[str, str]] = {}
    for one in results.configurations:
        for row in one.rows:
            made.setdefault(str(row["run"]), []).append(row)
            marks[str(row["run"])] = one.marks
    given = Counter(str(ours[0]["command"]) for ours in made.values())
    return [
        {
            "name": f"{_run_name(ours[0])}: "
            + ", ".join(f"{row['readout']} {format_score(row['val'])}" for row in ours)
            + _not_again(results, ours[0], marks[run] if given[str(ours[0]["command"])] > 1 else {}),
            "command": str(ours[0]["command"]),
            "seconds": f"{(ours[0]['seconds'] or 0) / (ours[0].get('together') or 1):.0f}",
        }
        for run, ours in made.items()
    ]


def _not_again(results: TaskResults, row: Row, marks: Mapping[str, str]) -> str:
    """What a row's command would find otherwise today, and what tells it from one of the same command."""
    there, targets = stores_of(row, results.stores), json.loads(row["targets"] or "{}")
    changed = [
        f"the labels of {role} are others now"
        for role, store in there.items()
        if store.header.targets is not None
        and targets.get(role) not in (None, store.header.targets.fingerprint)
    ]
    if results.task is not None and row["task_spec"] == results.task.spec:
        now = identity_text(results.task.identity())
        changed += ["the task is another now"] if row["task_identity"] not in (None, now) else []
    told = [f"{name} {value}" for name, value in marks.items()]
    told += [f"not to be repeated: {', '.join(changed)}"] if changed else []
    return f" ({'; '.join(told)})" if told else ""


def _evaluated_run(results: TaskResults, results_dir: Path, gaps: Gaps) -> EvaluatedRun | None:
    """The best run that kept predictions on val and whose val store is still there."""
    for best in results.rows:
        store = stores_of(best, results.stores).get("val")
        if store is None or not RunFolder.of(results_dir, best).predictions("val").exists():
            continue
        with gaps.around(f"pictures of {_run_name(best)}"):
            if (targets := store.targets) is not None:
                ours = [row for row in results.rows if row["run"] == best["run"]]
                run = sorted(ours, key=lambda row: str(row["readout"]))
                baselines = results.baselines.get("val", {})
                return EvaluatedRun.of(run, targets, pictures_of(store, gaps), baselines, results_dir)
    return None


def _clips(run: EvaluatedRun, task: Task) -> list[dict[str, Any]]:
    """A few clips with the probability of every class, for tasks of one yes or no an output."""
    names, targets = task.output_names, run.targets
    if "labels" not in targets or targets.shape("labels")[1:] != (len(names),):
        return []
    shown = []
    for index, frames in run.pictured[:CLIPS_SHOWN]:
        labels = targets.rows("labels", run.clips[index : index + 1])[0]
        classes = [
            {
                "name": name,
                "true": bool(labels[i]),
                "scores": {
                    kind: float(1 / (1 + np.exp(-outputs[index][i]))) for kind, outputs in run.outputs.items()
                },
            }
            for i, name in enumerate(names)
        ]
        shown.append({"frames": figures.jpeg(frames), "id": run.ids[index], "classes": classes})
    return shown
