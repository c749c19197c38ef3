"""One task on the page: configurations, differences, baselines, curves, pictures, clips, commands."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featcache.errors import ScividError
from readouts.report import figures
from readouts.report.task_figures import Picture, Scene, pictures_of
from readouts.results.configurations import Configuration, Row
from readouts.results.curve import read_curve
from readouts.results.formatting import (
    counted,
    format_interval,
    format_mean,
    format_published,
    format_score,
    format_settings,
    metric_title,
)
from readouts.results.run_folder import RunFolder
from readouts.results.task_results import TaskResults
from readouts.tasks.base import Task

CLIPS_SHOWN = 6
CURVES_SHOWN = 4
ROWS_SHOWN = 8
"""Configurations, and the best of every other backbone and readout; a sweep has its own picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSection:
    """What the page shows of one task."""

    name: str
    title: str
    metric: str
    better: str
    rows: Sequence[Mapping[str, Any]]
    """A configuration each."""
    n_tried: int
    n_left_out: int
    """Configurations that are not in `rows`."""
    units: str
    """What the intervals are over; empty where there are none."""
    no_intervals: str
    """Why a score has none; empty where all have."""
    baselines: Mapping[str, Mapping[str, str | None]]
    """Name of each baseline -> its score, by role."""
    differences: Sequence[Mapping[str, str]]
    published: Sequence[Mapping[str, Any]]
    published_source: str
    curves: Sequence[Mapping[str, str]]
    """Name and picture."""
    pictures: Sequence[Picture]
    """Of the best run that kept its predictions."""
    pictures_of: str
    clips: Sequence[Mapping[str, Any]]
    """A clip: its strip, true labels, and predictions of a run's heads."""
    readouts: Mapping[str, str]
    """Readouts of the clips -> colour of their bars."""
    commands: Sequence[Mapping[str, str]]
    problem: str | None = None
    """Why only the rows are shown."""


def task_section(results: TaskResults, results_dir: Path) -> TaskSection:
    """Everything of one task; what cannot be read is left out and named."""
    every = results.configurations
    shown: Sequence[Picture] = []
    clips: Sequence[Mapping[str, Any]] = []
    problem, scene = results.problem, None
    try:
        scene = _scene(results, results_dir)
        if scene is not None and results.task is not None:
            shown, clips = pictures_of(results.task, scene), _clips(scene, results.task)
    except ScividError as refusal:
        problem = problem or str(refusal)
    rows = [_row(results, one) for one in _shown(every)]
    intervals = [found for one in _shown(every) if (found := results.interval(one.rows, results.role))]
    refusals = results.intervals.refusals if results.intervals else []
    return TaskSection(
        name=results.name,
        title=results.title,
        metric=results.metric_title,
        better=results.better,
        rows=rows,
        n_tried=len(results.rows),
        n_left_out=len(every) - len(rows),
        units="; ".join(filter(None, [intervals[0].clusters, intervals[0].caution])) if intervals else "",
        no_intervals=refusals[0].removeprefix("no interval: ") if refusals else "",
        baselines={
            name: {role: format_score(score) for role, score in of.items()}
            for name, of in results.baseline_scores().items()
        },
        differences=_differences(results, every),
        published=[
            {"backbone": row.backbone, "readout": row.readout, "value": format_published(row.value)}
            for row in results.published.rows
        ],
        published_source=results.published.source,
        curves=_curves(results, every, results_dir),
        pictures=shown,
        pictures_of="" if scene is None else _run_name(scene.row),
        clips=clips,
        readouts={} if scene is None else figures.colours_of(scene.outputs),
        commands=_commands(every),
        problem=problem,
    )


def _shown(every: Sequence[Configuration]) -> list[Configuration]:
    found: set[tuple[str, str]] = set()
    shown = []
    for place, one in enumerate(every):
        what = (one.best["backbone"], one.best["readout"])
        if place < ROWS_SHOWN or what not in found:
            shown.append(one)
        found.add(what)
    return shown


def _row(results: TaskResults, one: Configuration) -> dict[str, Any]:
    best = one.best
    return {
        "backbone": best["backbone"],
        "title": best["backbone_title"],
        "control": best["control"],
        "layer": best["layer"],
        "readout": best["readout"],
        "settings": format_settings(one),
        "views": best["exactness"],
        "seeds": len(one.rows),
        **{role: format_mean(one, role) for role in ("val", "test")},
        **{
            f"{role}_interval": format_interval(results.interval(one.rows, role), one.mean(role))
            for role in ("val", "test")
        },
    }


def _differences(results: TaskResults, every: Sequence[Configuration]) -> list[dict[str, str]]:
    """The best against the second, and against the best control backbone that is another."""
    if len(every) < 2:
        return []
    first, second = every[:2]
    control = next(
        (o for o in every if o.best["control"] and o.best["backbone"] != first.best["backbone"]), None
    )
    found = []
    for what, other in (("the second", second), ("the best control backbone", control)):
        if other is None or (other is second and what != "the second"):
            continue
        if (difference := results.difference(first.rows, other.rows)) is not None:
            found.append(
                {
                    "what": f"{what}, a control ({other.best['control']})" if other is control else what,
                    "other": _name(other),
                    "value": f"{difference.value:+.3g}",
                    "interval": f"[{difference.interval.low:+.3g}, {difference.interval.high:+.3g}]",
                    "verdict": "clear" if difference.is_clear else "could be luck",
                }
            )
    return found


def _name(one: Configuration) -> str:
    row, seeds = one.best, counted(len(one.rows), "seed")
    return f"{row['backbone']}, layer {row['layer']}, {row['readout']}, {seeds}"


def _run_name(row: Row) -> str:
    return f"{row['backbone']}, layer {row['layer']}, seed {row['seed']}"


def _curves(results: TaskResults, every: Sequence[Configuration], results_dir: Path) -> list[dict[str, str]]:
    """Of the best run of each backbone that has one (a probe has none), the best ones first."""
    levels = {name: of["val"] for name, of in results.baseline_scores().items() if "val" in of}
    shown: dict[str, dict[str, str]] = {}
    for row in (one.best for one in every):
        if row["backbone"] in shown or len(shown) == CURVES_SHOWN:
            continue
        with suppress(ScividError):  # a run without its curve is still a row and a command
            if curve := read_curve(RunFolder.of(results_dir, row).curve):
                image = figures.curves(curve, row["metric"], levels, title=metric_title(row["metric"]))
                shown[row["backbone"]] = {"name": _run_name(row), "image": image}
    return list(shown.values())


def _commands(every: Sequence[Configuration]) -> list[dict[str, str]]:
    """The command of each run once, with the rows that it made."""
    made: dict[str, list[Row]] = {}
    for one in every:
        for row in one.rows:
            made.setdefault(str(row["run"]), []).append(row)
    return [
        {
            "name": f"{_run_name(rows[0])}: "
            + ", ".join(f"{row['readout']} {format_score(row['val'])}" for row in rows),
            "command": str(rows[0]["command"]),
            "seconds": f"{(rows[0]['seconds'] or 0) / (rows[0].get('together') or 1):.0f}",
        }
        for rows in made.values()
    ]


def _scene(results: TaskResults, results_dir: Path) -> Scene | None:
    """The val split of the best run that kept predictions and whose store is still there."""
    for best in results.rows:
        store = results.splits(best).get("val")
        targets = None if store is None else store.targets
        if (
            store is not None
            and targets is not None
            and RunFolder.of(results_dir, best).predictions("val").exists()
        ):
            ours = [row for row in results.rows if row["run"] == best["run"]]
            run = sorted(ours, key=lambda row: str(row["readout"]))
            return Scene.of(run, store, targets, results.baselines.get("val", {}), results_dir)
    return None


def _clips(scene: Scene, task: Task) -> list[dict[str, Any]]:
    """A few clips with the probability of every class, for tasks of one yes or no an output."""
    names, targets = task.output_names, scene.targets
    if "labels" not in targets or targets.shape("labels")[1:] != (len(names),):
        return []
    place = {clip: i for i, clip in enumerate(scene.clips.tolist())}
    strips = [(number, strip) for number, strip in scene.store.previews().items() if number in place]
    shown = []
    for number, strip in strips[:CLIPS_SHOWN]:
        row, labels = place[number], targets.rows("labels", np.array([number]))[0]
        classes = [
            {
                "name": name,
                "true": bool(labels[i]),
                "scores": {
                    kind: float(1 / (1 + np.exp(-outputs[row][i]))) for kind, outputs in scene.outputs.items()
                },
            }
            for i, name in enumerate(names)
        ]
        shown.append({"strip": figures.jpeg(strip), "id": scene.ids[row], "classes": classes})
    return shown
