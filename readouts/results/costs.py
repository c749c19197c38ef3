"""What a result cost: bytes of its stores, seconds and joules of extraction."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.store.feature_store import FeatureStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a store cost, or several together."""

    n_bytes: int
    """Bytes of tokens."""
    seconds: float | None
    """Seconds of extraction; None where one of the stores does not say."""
    joules: float | None
    """Energy of extraction; None where nobody measured it."""


def cost_of(stores: Iterable[FeatureStore]) -> Cost:
    """The sum over stores of all their layers, which a readout of one layer shares with others."""
    every = list(stores)
    runs = [_runs(store.path) for store in every]
    return Cost(
        n_bytes=sum(store.spec.payload_bytes for store in every),
        seconds=_sum(runs, "seconds"),
        joules=_sum(runs, "joules"),
    )


def _sum(runs: Iterable[list[Mapping[str, Any]]], fact: str) -> float | None:
    """Over the runs of all stores; None unless every run of every store says it."""
    known = [[run.get(fact) for run in of_store] for of_store in runs]
    if not known or not all(known) or any(value is None for of_store in known for value in of_store):
        return None
    return float(sum(value for of_store in known for value in of_store if value is not None))


def _runs(store: Path) -> list[Mapping[str, Any]]:
    """What extraction logged, a line a process; torn lines are skipped."""
    found = []
    with suppress(OSError):
        for line in (store / "runs.jsonl").read_text().splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return found
