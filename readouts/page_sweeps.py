"""Sweeps on the page: a picture a task, or a table where too much varied at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from readouts import pictures
from readouts.standings import Row, configurations, written_mean, written_settings
from readouts.studies import STUDIES
from readouts.sweep_curves import Bounds, panel_of, varied
from readouts.task_results import TaskResults

TABLE_ROWS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskPanel:
    """One sweep on one task."""

    title: str
    image: str
    """Empty where a table says it better."""
    varied: str
    """The axes and their values."""
    table: Sequence[Mapping[str, str]]
    n_configurations: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSection:
    """One sweep."""

    name: str
    question: str
    """Of a study; empty of a grid of one's own."""
    n_rows: int
    panels: Sequence[TaskPanel]


def sweep_sections(tasks: Sequence[TaskResults]) -> list[SweepSection]:
    """Every sweep that has rows, by name; a study by its title, along the axis that it names."""
    names = sorted({str(row["sweep"]) for task in tasks for row in task.rows if row.get("sweep")})
    sections = []
    for name in names:
        study = STUDIES.get(name)
        ours = {task.name: [row for row in task.rows if row.get("sweep") == name] for task in tasks}
        along = study.along if study else None
        panels = [_panel(task, ours[task.name], along) for task in tasks if len(ours[task.name]) > 1]
        n_rows = sum(map(len, ours.values()))
        sections.append(
            SweepSection(
                name=study.title if study else name,
                question=study.question if study else "",
                n_rows=n_rows,
                panels=panels,
            )
        )
    return sections


def _panel(task: TaskResults, rows: Sequence[Row], along: str | None) -> TaskPanel:
    role = "val" if any(row["test"] is None for row in rows) else "test"

    def bounds_of(row: Row) -> Bounds | None:
        found = task.interval(row, role)
        return None if found is None else (found.low, found.high)

    panel = panel_of(rows, role=role, bounds_of=bounds_of, along=along)
    image = ""
    if panel.axis:
        levels = {name: of[role] for name, of in task.control_scores().items() if role in of}
        image = pictures.sweep_curves(
            panel.curves,
            axis=panel.axis,
            score=f"{task.metric} on {role}",
            controls=levels,
            logarithmic=panel.logarithmic,
            joined=panel.axis not in ("backbone", "readout"),
        )
    every = configurations(rows)
    return TaskPanel(
        title=task.title,
        image=image,
        varied="; ".join(f"{name}: {_listed(values)}" for name, values in varied(rows).items()),
        table=[
            {
                "backbone": str(one.best["backbone"]),
                "layer": str(one.best["layer"]),
                "readout": str(one.best["readout"]),
                "settings": written_settings(one),
                "score": written_mean(one, role) or "",
            }
            for one in every[:TABLE_ROWS]
        ]
        if not image
        else [],
        n_configurations=len(every),
    )


def _listed(values: Sequence[object]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
