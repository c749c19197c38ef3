"""One task on the page: configurations, differences, baselines, curves, figures, clips, commands."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from readouts.report import figures
from readouts.report.behaviours import Behaviours, behaviours_of
from readouts.report.gaps import Gaps, pictures_of
from readouts.report.rows import SHOWN, RowGroup, comparison_data, row_groups
from readouts.report.task_figures import EvaluatedRun, figures_of
from readouts.results.comparability import Row
from readouts.results.configurations import of_kind
from readouts.results.formatting import counted, metric_title
from readouts.results.published import KINDS
from readouts.results.run_folder import RunFolder, read_whole_curve
from readouts.results.task_results import TaskResults, stores_of
from readouts.tasks.base import Task

CLIPS_SHOWN = 6
CURVES_SHOWN = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSection:
    """What the page shows of one task, in the order of the page."""

    results: TaskResults
    problem: str | None
    """Why only the scores are shown."""
    missing: Sequence[str]
    """What else is not shown, and why."""
    groups: Sequence[RowGroup]
    comparison: str
    """What the script compares configurations by, as JSON."""
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


def task_section(results: TaskResults, results_dir: Path) -> TaskSection:
    """Everything of one task; what cannot be read is skipped and named."""
    gaps = Gaps()
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
    groups, comparison = row_groups(results), comparison_data(results)
    intervals = (results.interval(one.rows, results.role) for one in results.configurations[:SHOWN])
    first = next(filter(None, intervals), None)
    differences = _differences(results)
    refusals = results.intervals.refusals if results.intervals else []
    for damaged in results.intervals.damaged if results.intervals else []:
        gaps.add(damaged)
    return TaskSection(
        results=results,
        problem=results.problem,
        missing=gaps.messages,
        groups=groups,
        comparison=json.dumps(comparison, separators=(",", ":")).replace("<", "\\u003c"),
        independent="" if first is None else "; ".join(filter(None, [first.clusters, first.caution])),
        no_intervals=refusals[0].removeprefix("no interval: ") if refusals else "",
        differences=differences,
        curves=curves,
        run_name="" if run is None else _run_name(run.row),
        figures=drawn,
        clips=clips,
        colours={} if run is None else figures.colours_of(run.outputs),
        behaviours=behaviours,
    )


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
                    "verdict": difference.verdict(results.role),
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
            image, spots = figures.curves(curve, row["metric"], levels, title=metric_title(row["metric"]))
            shown[row["backbone"]] = figures.PageFigure(title=_run_name(row), image=image, spots=spots)
    return list(shown.values())


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
