"""What a result cost: bytes of its stores, seconds and joules of extraction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.store.feature_store import FeatureStore
from featcache.system.files import read_regular
from featcache.system.sealed import json_unsealed

LARGEST = 2**26
"""Bytes of a log; a line has a few hundred."""


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
    values = [value for of_store in known for value in of_store]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return sum(numbers) if known and all(known) and len(numbers) == len(values) else None


def _runs(store: Path) -> list[Mapping[str, Any]]:
    """What extraction logged, a line a process; nothing where a line is torn or damaged: its part is lost."""
    try:
        lines = read_regular(store / "runs.jsonl", limit=LARGEST).splitlines()
        return [json_unsealed(line + b"\n")[0] for line in lines]  # as each was sealed
    except (OSError, ValueError):
        return []
