"""What each score cost, on the page: a figure for each task."""

from collections.abc import Mapping, Sequence

from featcache.store.feature_store import FeatureStore
from readouts.report import figures
from readouts.results.comparability import seconds_of
from readouts.results.configurations import Configuration
from readouts.results.costs import cost_of
from readouts.results.task_results import TaskResults, stores_of

COSTS = ("stores (MB)", "extraction (s)", "a readout (s)", "extraction (J)")


def cost_figures(tasks: Sequence[TaskResults]) -> list[figures.PageFigure]:
    """Score against bytes, extraction and training, for every task whose stores are still there."""
    found = []
    for task in tasks:
        every = task.configurations
        # A sweep scores test for the rows that val selected only.
        role = "test" if all(one.scores("test") for one in every) else "val"
        used = _used(task)
        points = [point for one in every if (point := _point(one, role, used))]
        if points:
            score = f"{task.metric_title} on {role}\n({task.better})"
            image = figures.scores_by_cost(points, costs=COSTS, score=score)
            found.append(figures.PageFigure(title=task.title, image=image))
    return found


def _used(task: TaskResults) -> dict[str, dict[str, FeatureStore]]:
    """Fingerprint of a train store -> that and the stores that its readouts were scored on, by role.

    Of all its rows together: test is scored for what val selected only, and costs all of them the same.
    """
    used: dict[str, dict[str, FeatureStore]] = {}
    for row in task.rows:
        used.setdefault(str(row["train_fingerprint"]), {}).update(stores_of(row, task.stores))
    return used


def _point(
    one: Configuration, role: str, used: Mapping[str, Mapping[str, FeatureStore]]
) -> figures.CostPoint | None:
    """What a configuration scored and cost; None where it was not scored or its store is gone."""
    row, score = one.best, one.mean(role)
    stores = used[str(row["train_fingerprint"])]
    if score is None or "train" not in stores:
        return None
    cost = cost_of(stores.values())
    return figures.CostPoint(
        backbone=row["backbone"],
        readout=row["readout"],
        score=score,
        spent=(cost.n_bytes / 1e6, cost.seconds, seconds_of(row) or None, cost.joules),
    )
