"""What each score cost, on the page: a picture a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featcache.store.feature_store import FeatureStore
from readouts.report import figures
from readouts.results.configurations import Configuration
from readouts.results.costs import cost_of
from readouts.results.task_results import TaskResults


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
        used = _used(task)
        points = [point for one in every if (point := _point(one, role, used))]
        if points:
            names = ["stores (MB)", "extraction (s)", "a readout (s)", "extraction (J)"]
            known = [i for i in range(len(names)) if any(point.spent[i] for point in points)]
            image = figures.scores_by_cost(
                [_only(point, known) for point in points],
                costs=[names[i] for i in known],
                score=f"{task.metric_title} on {role}\n({task.better})",
            )
            found.append(CostPicture(title=task.title, image=image))
    return found


def _used(task: TaskResults) -> dict[str, dict[str, FeatureStore]]:
    """Fingerprint of a train store -> that and the stores that its readouts were scored on, role by role.

    Of all its rows together: test is scored for what val selected only, and costs all of them the same.
    """
    used: dict[str, dict[str, FeatureStore]] = {}
    for row in task.rows:
        used.setdefault(str(row["train_fingerprint"]), {}).update(task.splits(row))
    return used


def _point(
    one: Configuration, role: str, used: Mapping[str, Mapping[str, FeatureStore]]
) -> figures.Point | None:
    row, score = one.best, one.mean(role)
    stores = used[str(row["train_fingerprint"])]
    if score is None or "train" not in stores:
        return None
    cost = cost_of(stores.values())
    # A pass over the data that trained several runs is shared by them.
    seconds = row["seconds"] / (row.get("together") or 1) if row["seconds"] else None
    return figures.Point(
        backbone=row["backbone"],
        readout=row["readout"],
        score=score,
        spent=(cost.n_bytes / 1e6, cost.seconds, seconds, cost.joules),
    )


def _only(point: figures.Point, known: Sequence[int]) -> figures.Point:
    return figures.Point(
        backbone=point.backbone,
        readout=point.readout,
        score=point.score,
        spent=tuple(point.spent[i] for i in known),
    )
