"""What each score cost, on the page: a picture a task."""

from collections.abc import Sequence
from dataclasses import dataclass

from readouts import pictures
from readouts.costs import cost_of
from readouts.standings import Configuration
from readouts.task_results import TaskResults


@dataclass(frozen=True, kw_only=True, slots=True)
class CostPicture:
    """One task."""

    title: str
    image: str


def cost_pictures(tasks: Sequence[TaskResults]) -> list[CostPicture]:
    """Score against bytes, extraction and training, for every task whose stores are still there."""
    found = []
    for task in tasks:
        every = task.configurations
        # A sweep scores test for the rows that val selected only.
        role = "test" if all(one.scores("test") for one in every) else "val"
        points = [point for one in every if (point := _point(one, role, task))]
        if points:
            names = ["stores (MB)", "extraction (s)", "a readout (s)", "extraction (J)"]
            known = [i for i in range(len(names)) if any(point.spent[i] for point in points)]
            image = pictures.scores_by_cost(
                [_only(point, known) for point in points],
                costs=[names[i] for i in known],
                score=f"{task.metric} on {role}",
            )
            found.append(CostPicture(title=task.title, image=image))
    return found


def _point(one: Configuration, role: str, task: TaskResults) -> pictures.Point | None:
    row, score = one.best, one.mean(role)
    used = task.splits(row)
    if score is None or "train" not in used:
        return None
    cost = cost_of(used.values())
    # A pass over the data that trained several runs is shared by them.
    seconds = row["seconds"] / (row.get("together") or 1) if row["seconds"] else None
    return pictures.Point(
        backbone=row["backbone"],
        readout=row["readout"],
        score=score,
        spent=(cost.n_bytes / 1e6, cost.seconds, seconds, cost.joules),
    )


def _only(point: pictures.Point, known: Sequence[int]) -> pictures.Point:
    return pictures.Point(
        backbone=point.backbone,
        readout=point.readout,
        score=point.score,
        spent=tuple(point.spent[i] for i in known),
    )
