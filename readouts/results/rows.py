"""The one place that makes rows of the results table: of a run's scores, of its splits, of what it took."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Protocol, runtime_checkable

import torch

from featcache.system.device import device_name
from readouts.features.splits import FeatureSplit, targets_fingerprint, view_option
from readouts.tasks.base import Task

SOFTWARE = ("scivid", "torch", "numpy", "scikit-learn")
"""Packages whose versions a row names."""

OF_THE_TRAINING = ("seconds", "together", "sweep", "device", "software")
"""Columns that stay as they are when weights that are there already are scored on a further split."""


@runtime_checkable
class RecordedRun(Protocol):
    """What a row says of any run, trained or fitted."""

    @property
    def id(self) -> str:
        """The run's digest."""

    @property
    def task(self) -> Task:
        """The task that it was scored on."""

    @property
    def seed(self) -> int:
        """The seed of its draws."""


def make_row(
    run: RecordedRun,
    readout: str,
    *,
    splits: Mapping[str, FeatureSplit],
    scores: Mapping[str, Mapping[str, float]],
    best_val: float,
    best_step: int,
    steps: int,
    batch: int | None,
    parameters: int,
    recipe: Mapping[str, Any],
    config: Mapping[str, Any],
    device: torch.device,
    seconds: float,
    together: int,
    sweep: str | None,
    command: str,
) -> dict[str, Any]:
    """The results row of one readout of a run that ended just now.

    Args:
        run: whose row it is.
        readout: by its name.
        splits: role (train, val, perhaps test) -> the features that were used, of train the share.
        scores: role -> every score of the last step over the whole split.
        best_val: of the best point of the curve.
        best_step: that point's step.
        steps: updates that were taken, 0 of what is not trained.
        batch: clips per update, None of what is not trained.
        parameters: that the readout has learned.
        recipe: the settings of the training.
        config: the settings of the readout.
        device: it ran on.
        seconds: of training, evaluations included, over all processes that took part.
        together: runs that shared these seconds.
        sweep: the sweep that it belongs to, None of a single run.
        command: what repeats it.
    """
    task = run.task
    return {
        **_of_splits(splits),
        "run": run.id,
        "finished": datetime.now(UTC),
        "task": task.name,
        "task_spec": task.spec,
        "readout": readout,
        "metric": task.score,
        "higher_is_better": task.higher_is_better,
        "val": scores["val"][task.score],
        "best_val": best_val,
        "best_step": best_step,
        "test": scores["test"][task.score] if "test" in scores else None,
        "scores": json.dumps(scores),
        "seed": run.seed,
        "steps": steps,
        "batch": batch,
        "parameters": parameters,
        "recipe": json.dumps(recipe),
        "readout_config": json.dumps(config),
        "seconds": seconds,
        "together": together,
        "sweep": sweep,
        "device": device_name(device),
        "software": json.dumps({name: version(name) for name in SOFTWARE}),
        "command": command,
    }


def scored_later(
    rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """New rows of a run whose training `before` tells of: that stays true of them, and so does its command.

    A command is replaced only by another one, which repeats the further scores as well.
    """
    known = {row["readout"]: row for row in before}
    return [
        {
            **row,
            **{name: known[row["readout"]][name] for name in OF_THE_TRAINING},
            "command": row.get("command") or known[row["readout"]]["command"],
        }
        if row["readout"] in known
        else dict(row)
        for row in rows
    ]


def _of_splits(splits: Mapping[str, FeatureSplit]) -> dict[str, Any]:
    """The columns that name the stores a row's numbers came from."""
    train = splits["train"]
    store = train.store
    row = {name: store.attrs[name] for name in ("backbone", "backbone_title", "control", "exactness")}
    row |= {"layer": train.layer.name, "views": train.n_views, "view_seed": view_option(store, "seed")}
    for role, split in splits.items():
        row |= {
            f"n_{role}": len(split.usable),
            f"{role}_store": split.store.path.name,
            f"{role}_fingerprint": split.store.fingerprint,
        }
    return row | {"targets": json.dumps({role: targets_fingerprint(s) for role, s in splits.items()})}
