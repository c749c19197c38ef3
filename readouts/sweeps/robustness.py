"""Readouts that were trained on clips as filmed, scored on corrupted ones: the study of robustness.

Stores of corrupted clips are made once, by `scivid extract --corruption`; nothing is trained here. What is
found goes into the sweep's record, a line a run, readout and corruption, and not into the results table: the
scores are of the runs that are there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

from featcache.errors import CallError, StoreError
from featcache.spec import Corruption, parse_corruptions
from featcache.store.feature_store import FeatureStore, find_stores
from featcache.store.matching import refuse_incompatible
from featcache.system.console import Progress, command_line
from readouts.features.splits import FeatureSplit
from readouts.results.comparability import Row
from readouts.sweeps.plan import Folders, Trial, open_splits
from readouts.training.evaluate import score
from readouts.tuning.loaded import load_run

EVERY = parse_corruptions("all")

Line = dict[str, Any]
"""`run`, `readout`, `corruption`, `severity`, `role`, `score`, `n` clips, `fingerprint` of the store."""


def corrupted_stores(trial: Trial, role: str, folders: Folders) -> dict[Corruption, FeatureStore]:
    """The stores of corrupted clips that a run's readouts can be scored on."""
    train, found = trial.run.training.store, {}
    for corruption in EVERY:
        name = f"{trial.cell.backbone}{corruption.ending}"
        for store in find_stores(folders.cache_dir, trial.run.task.name, role, name):
            try:
                refuse_incompatible(store.path, store.header, train_path=train.path, train=train.header)
            except StoreError:
                continue
            found[corruption] = store
    return found


def missing_stores(trials: Sequence[Trial], role: str, folders: Folders) -> list[str]:
    """A line for each backbone that lacks corrupted stores, with the command that makes them."""
    lines = {}
    for trial in trials:
        there = corrupted_stores(trial, role, folders)
        lacking = [f"{one.kind}:{one.severity}" for one in EVERY if one not in there]
        if not lacking:
            continue
        precision = trial.run.training.store.parts["backbone"].get("precision")
        command = command_line(
            "extract", backbone=trial.cell.backbone, task=trial.run.task.name, split=role,
            corruption="all" if len(lacking) == len(EVERY) else ",".join(lacking),
            layers=",".join(layer.name for layer in trial.run.training.store.spec.layers),
            precision=precision, cache_dir=folders.cache_dir, manifest=folders.manifest_file,
        )  # fmt: skip
        lines[command] = f"{len(lacking)} of {len(EVERY)} corrupted {role} stores are missing: {command}"
    return list(lines.values())


def robustness(
    trials: Sequence[Trial],
    rows: Sequence[Row],
    folders: Folders,
    *,
    role: str,
    device: torch.device,
    progress: Progress,
) -> list[Line]:
    """A line for each run that has ended, its readouts, and the corruptions whose stores are there.

    Severity 0 is the clip as filmed: what the results table says.

    Args:
        trials: of the sweep.
        rows: of them in the results table.
        folders: where stores and results are.
        role: the split whose clips are corrupted.
        device: to run the heads on.
        progress: told how many clips are scored.
    """
    ended = {str(row["run"]) for row in rows}
    lines = [
        {"run": row["run"], "readout": row["readout"], "corruption": "", "severity": 0, "role": role,
         "score": row[role], "n": row[f"n_{role}"], "fingerprint": row[f"{role}_fingerprint"]}
        for row in rows if row[role] is not None
    ]  # fmt: skip
    for trial in trials:
        if trial.run.id in ended:
            lines += _of_run(trial, role, folders, device, progress)
    return lines


def severities_in_words(lines: Sequence[Line]) -> list[dict[str, object]]:
    """A row a readout and corruption: its mean score over seeds as filmed, and at each severity."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for line in lines:
        if line["severity"]:
            key = (str(line["readout"]), str(line["corruption"]))
            row = rows.setdefault(key, {"readout": key[0], "corruption": key[1]})
            row["as filmed"] = _mean(lines, key[0], "", 0)
            row[f"severity {line['severity']}"] = _mean(lines, *key, line["severity"])
    return list(rows.values())


def _mean(lines: Sequence[Line], readout: str, corruption: str, severity: int) -> str:
    wanted = (readout, corruption, severity)
    scores = [one["score"] for one in lines if (one["readout"], one["corruption"], one["severity"]) == wanted]
    return f"{fmean(scores):.3f}" if scores else ""


def _of_run(
    trial: Trial, role: str, folders: Folders, device: torch.device, progress: Progress
) -> Iterator[Line]:
    stores = corrupted_stores(trial, role, folders)
    if not stores:
        return
    if trial.run.tuning is not None:
        raise CallError(
            f"{trial.run.id} tuned its backbone, and corrupted clips are scored of frozen ones: leave tune "
            "out."
        )
    run, splits = trial.run, open_splits(trial.cell, trial.run.task, folders, test=role == "test")
    trained = load_run(run.folder(folders.results_dir).path).to(device)
    heads: Any = {run.id: dict(trained.heads.items())}
    for corruption, store in stores.items():
        split = FeatureSplit(store=store, layers=splits[role].layers)
        like = replace(run, splits={**splits, role: split})
        (scored,) = score(heads, like, role, trained.prepare, device, progress=progress).values()
        for readout, scores in scored.scores.items():
            yield {
                "run": run.id, "readout": readout, "corruption": corruption.kind,
                "severity": corruption.severity, "role": role, "score": scores[run.task.score],
                "n": len(scored.clips), "fingerprint": store.fingerprint,
            }  # fmt: skip
