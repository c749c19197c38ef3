"""Sweeps on the page: a figure for each task, or a table where too much varied at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from readouts.report import figures
from readouts.report.gaps import Gaps
from readouts.report.sweeps.curves import panel_of, varied
from readouts.report.sweeps.robustness import RobustnessPanel, robustness_panels
from readouts.results.comparability import Row
from readouts.results.configurations import configurations
from readouts.results.formatting import configuration_cells, counted, format_value
from readouts.results.task_results import TaskResults
from readouts.sweeps.run import known_sweeps
from readouts.sweeps.studies import ROBUSTNESS

CONFIGURATIONS_SHOWN = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSweep:
    """One sweep on one task."""

    title: str
    image: str
    """Empty where a table says it better."""
    spots: Sequence[figures.Spot]
    varied: str
    """The axes and their values."""
    role: str
    """The split whose scores are shown."""
    score: str
    """What the scores are called, with their split and direction."""
    table: Sequence[Mapping[str, object]]
    """The best configurations on val; empty where there is an image."""
    n_configurations: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepSection:
    """One sweep on all tasks that it has rows of."""

    name: str
    question: str
    """The question of a study; empty of a grid of one's own."""
    rows: str
    """How many rows it has."""
    tasks: Sequence[TaskSweep]
    robustness: Sequence[RobustnessPanel] = ()
    """Of a study of robustness, whose runs differ in nothing but their seeds."""


def sweep_sections(tasks: Sequence[TaskResults], results_dir: Path, gaps: Gaps) -> list[SweepSection]:
    """Every sweep that has rows, by name; a study with its title, along the axis that it names.

    A row belongs to every sweep that asked for it, whichever trained it first.
    """
    known, damaged = known_sweeps(results_dir)
    for problem in damaged:
        gaps.add(str(problem))
    trained = {str(row["sweep"]) for task in tasks for row in task.rows if row.get("sweep")}
    sections = []
    for name in sorted(trained | known.keys()):
        about = known.get(name, {})
        with gaps.around(f"sweep {name}"):
            runs = set(about.get("runs", ()))
            ours = [
                (task, [row for row in task.rows if row.get("sweep") == name or row["run"] in runs])
                for task in tasks
            ]
            if n_rows := sum(len(rows) for _, rows in ours):
                along = about.get("along")
                sections.append(
                    SweepSection(
                        name=f"{about['title']} ({name})" if "title" in about else name,
                        question=about.get("question", ""),
                        rows=counted(n_rows, "row"),
                        tasks=[_task_sweep(task, rows, along) for task, rows in ours if len(rows) > 1]
                        if ROBUSTNESS not in about
                        else [],
                        robustness=[
                            panel
                            for task, _ in ours
                            for panel in robustness_panels(task, about.get(ROBUSTNESS, ()))
                        ],
                    )
                )
    return sections


def _task_sweep(task: TaskResults, rows: Sequence[Row], along: str | None) -> TaskSweep:
    role = "val" if any(row["test"] is None for row in rows) else "test"
    (image, spots), every = _image(task, rows, role, along), configurations(rows)
    values = {name: ", ".join(map(format_value, found)) for name, found in varied(rows).items()}
    return TaskSweep(
        title=task.title,
        image=image,
        spots=spots,
        varied="; ".join(f"{name}: {listed}" for name, listed in values.items()),
        role=role,
        score=f"{task.metric_title} on {role}, {task.better}",
        table=[] if image else [configuration_cells(one) for one in every[:CONFIGURATIONS_SHOWN]],
        n_configurations=len(every),
    )


def _image(
    task: TaskResults, rows: Sequence[Row], role: str, along: str | None
) -> tuple[str, list[figures.Spot]]:
    """The sweep as curves, and their points; empty where it varied too much for them."""

    def bounds_of(row: Row) -> tuple[float, float] | None:
        found = task.interval([row], role)
        return None if found is None else (found.low, found.high)

    panel = panel_of(rows, role=role, bounds_of=bounds_of, along=along)
    if not panel.axis:
        return "", []
    return figures.sweep_curves(
        panel.curves,
        axis=panel.axis,
        score=f"{task.metric_title} on {role}\n({task.better})",
        baselines={name: of[role] for name, of in task.baseline_scores().items() if role in of},
        logarithmic=panel.logarithmic,
        joined=panel.axis not in ("backbone", "readout"),
    )
