"""Sweeps on the page: a picture a task, or a table where too much varied at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from readouts.report import figures
from readouts.report.sweep_curves import Bounds, panel_of, varied
from readouts.results.configurations import Row, configurations
from readouts.results.formatting import counted, format_mean, format_settings
from readouts.results.task_results import TaskResults
from readouts.sweeps.run import known_sweeps

TABLE_ROWS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskPanel:
    """One sweep on one task."""

    title: str
    image: str
    """Empty where a table says it better."""
    varied: str
    """The axes and their values."""
    score: str
    """Of the table, and the split that it is on."""
    table: Sequence[Mapping[str, str]]
    n_configurations: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSection:
    """One sweep."""

    name: str
    question: str
    """Of a study; empty of a grid of one's own."""
    rows: str
    """How many it has."""
    panels: Sequence[TaskPanel]


def sweep_sections(tasks: Sequence[TaskResults], results_dir: Path) -> list[SweepSection]:
    """Every sweep that has rows, by name; a study with its title, along the axis that it names.

    A row belongs to every sweep that asked for it, whichever trained it first.
    """
    known = known_sweeps(results_dir)
    trained = {str(row["sweep"]) for task in tasks for row in task.rows if row.get("sweep")}
    sections = []
    for name in sorted(trained | known.keys()):
        about = known.get(name, {})
        runs = set(about.get("runs", ()))
        ours = [
            (task, [row for row in task.rows if row.get("sweep") == name or row["run"] in runs])
            for task in tasks
        ]
        if n_rows := sum(len(rows) for _, rows in ours):
            sections.append(
                SweepSection(
                    name=f"{about['title']} ({name})" if "title" in about else name,
                    question=about.get("question", ""),
                    rows=counted(n_rows, "row"),
                    panels=[_panel(task, rows, about.get("along")) for task, rows in ours if len(rows) > 1],
                )
            )
    return sections


def _panel(task: TaskResults, rows: Sequence[Row], along: str | None) -> TaskPanel:
    role = "val" if any(row["test"] is None for row in rows) else "test"

    def bounds_of(row: Row) -> Bounds | None:
        found = task.interval([row], role)
        return None if found is None else (found.low, found.high)

    score = f"{task.metric_title} on {role}"
    panel = panel_of(rows, role=role, bounds_of=bounds_of, along=along)
    image = ""
    if panel.axis:
        levels = {name: of[role] for name, of in task.baseline_scores().items() if role in of}
        image = figures.sweep_curves(
            panel.curves,
            axis=panel.axis,
            score=f"{score}\n({task.better})",
            baselines=levels,
            logarithmic=panel.logarithmic,
            joined=panel.axis not in ("backbone", "readout"),
        )
    every = configurations(rows)
    return TaskPanel(
        title=task.title,
        image=image,
        varied="; ".join(f"{name}: {_listed(values)}" for name, values in varied(rows).items()),
        score=f"{score}, {task.better}",
        table=[
            {
                "backbone": str(one.best["backbone"]),
                "layer": str(one.best["layer"]),
                "readout": str(one.best["readout"]),
                "settings": format_settings(one),
                "score": format_mean(one, role) or "",
            }
            for one in every[:TABLE_ROWS]
        ]
        if not image
        else [],
        n_configurations=len(every),
    )


def _listed(values: Sequence[object]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
