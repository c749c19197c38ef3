"""What is kept of a run that ended: rows of the results table, outputs and statistics of single clips."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from featcache.system.device import device_name
from featcache.system.versions import version_of
from readouts.features.splits import FeatureSplit, targets_fingerprint, view_option
from readouts.results.comparability import identity_text
from readouts.results.decided import decision_scores
from readouts.results.per_clip import write_per_clip, write_predictions
from readouts.results.table import add_run, run_rows
from readouts.training.evaluate import Scored
from readouts.training.run import Run

SOFTWARE = ("scivid", "torch", "numpy", "scikit-learn")
"""Packages whose versions a row names."""

OF_THE_TRAINING = ("seconds", "together", "sweep", "device", "software")
"""Columns that stay as they are when weights that are there already are scored on a further split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """What a readout's row says of its training."""

    best_step: int
    best_val: float
    """Of the best point of its curve, over the first clips of val."""
    parameters: int
    """Numbers that were trained: the head's, and a tuned backbone's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a run took, on which device."""

    device: torch.device
    seconds: float
    """All processes that took part, evaluations included."""
    together: int
    """Runs that shared these seconds."""


def record(
    run: Run,
    results_dir: Path,
    found: Mapping[str, Scored],
    *,
    learned: Mapping[str, Learned],
    cost: Cost,
    command: str,
    sweep: str | None,
    trained_before: bool,
) -> None:
    """Write what a run's readouts give on whole splits, single clips first, then the rows of the table.

    Args:
        run: that ended.
        results_dir: the table lies there, and the run's folder.
        found: role (val, perhaps test) -> the outputs and scores of the last step.
        learned: readout -> what is told of its training.
        cost: of the training, where it was trained now.
        command: what repeats the run, "" where that is not known.
        sweep: the sweep that it belongs to, None of a single run.
        trained_before: a run that the table knows was only scored on a further split: what the table says of
            its training stays.
    """
    folder = run.folder(results_dir)
    for role, scored in found.items():
        kept = scored.clips[: run.task.predictions_kept]
        ids = run.splits[role].store.clip_table.take(kept, "id").column(0)
        write_predictions(folder, role, kept, ids, scored.outputs)
        write_per_clip(folder, role, scored.clips, scored.per_clip)
    scores = _scores(run, found)
    rows = [
        _of_splits({**run.splits, "train": run.training})
        | _of_scores(run, kind, scores[kind])
        | ({"tuned": "frozen"} if run.tuning is None else run.tuning.columns)
        | {
            "best_val": learned[kind].best_val,
            "best_step": learned[kind].best_step,
            "parameters": learned[kind].parameters,
            "device": device_name(cost.device),
            "seconds": cost.seconds,
            "together": cost.together,
            "software": json.dumps({name: version_of(name) for name in SOFTWARE}),
            "sweep": sweep,
            "command": command,
        }
        for kind in run.readouts
    ]
    add_run(
        results_dir, run.id, scored_later(rows, run_rows(results_dir, run.id)) if trained_before else rows
    )


def _scores(run: Run, found: Mapping[str, Scored]) -> dict[str, dict[str, dict[str, float]]]:
    """Readout -> role -> the task's scores; of labels F1 as well, at thresholds chosen on val."""
    gives = run.gives
    scores = {
        kind: {role: dict(scored.scores[kind]) for role, scored in found.items()} for kind in run.readouts
    }
    for kind, of_kind in scores.items():
        kept = {
            role: (scored.outputs[kind], scored.per_clip[kind].get("labels"))
            for role, scored in found.items()
        }
        labelled = {role: (logits, labels) for role, (logits, labels) in kept.items() if labels is not None}
        whole = all(logits.shape == labels.shape for logits, labels in labelled.values())
        if gives["are_labels"] and labelled.keys() == kept.keys() and whole:
            decided = decision_scores(labelled, gives["names"], gives["background"])
            for role, of_role in decided.items():
                of_kind[role] |= of_role
    return scores


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
            "command": row["command"] or known[row["readout"]]["command"],
        }
        if row["readout"] in known
        else dict(row)
        for row in rows
    ]


def _of_scores(run: Run, kind: str, scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The columns that name a run, its settings and its scores, given role -> scores of the last step."""
    task = run.task
    return {
        "run": run.id,
        "finished": datetime.now(UTC),
        "task": task.name,
        "task_spec": task.spec,
        "task_identity": identity_text(task.identity()),
        "readout": kind,
        "metric": task.score,
        "higher_is_better": task.higher_is_better,
        "val": scores["val"][task.score],
        "test": scores["test"][task.score] if "test" in scores else None,
        "scores": json.dumps(scores),
        "seed": run.seed,
        "steps": run.n_steps,
        "batch": run.recipe.batch if run.is_trained else None,
        "recipe": json.dumps(run.recipe_settings),
        "readout_config": json.dumps(dict(run.readouts[kind])),
    }


def _of_splits(splits: Mapping[str, FeatureSplit]) -> dict[str, Any]:
    """The columns that name the stores a row's numbers came from."""
    train = splits["train"]
    store = train.store
    row = {name: store.attrs[name] for name in ("backbone", "backbone_title", "control", "exactness")}
    row["weights"] = store.attrs.get("weights")
    row |= {"layer": train.layer_name, "views": train.n_views, "view_seed": view_option(store, "seed")}
    for role, split in splits.items():
        row |= {
            f"n_{role}": split.n_usable,
            f"{role}_store": split.store.path.name,
            f"{role}_fingerprint": split.store.fingerprint,
        }
    return row | {"targets": json.dumps({role: targets_fingerprint(s) for role, s in splits.items()})}
