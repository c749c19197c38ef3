"""What a split is: a finished store at one layer, or a part of it, and what of it decides a run's numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64

from featcache.errors import CallError, StoreError
from featcache.spec import Layer, Starts
from featcache.store.feature_store import FeatureStore
from featcache.store.targets import Targets
from readouts.features.draws import Draws

SUBSET_SEED = 0
"""Seed of the order in which smaller shares of a split's clips are cut off."""


@dataclass(frozen=True, kw_only=True)
class FeatureSplit:
    """One finished store with its targets, at one layer; or a part of it."""

    store: FeatureStore
    layer: Layer
    fraction: float = 1.0
    """Share of the clips that is used: nested random subsets, each in the order of the file."""
    first_views: int = 0
    """How many of each clip's views are drawn from, the first ones; 0 for all."""

    def __post_init__(self) -> None:
        if self.first_views > self.store.spec.n_views:
            raise CallError(
                f"{self.store.path} holds {self.store.spec.n_views} views of a clip, not "
                f"{self.first_views}: extract it with --views {self.first_views}."
            )

    @cached_property
    def targets(self) -> Targets | None:
        """The targets, opened but not loaded; None where the split has none."""
        return self.store.targets

    @cached_property
    def usable(self) -> Int64[np.ndarray, " n"]:
        """Numbers of the clips that hold features (those skipped at extraction do not), or of a share."""
        numbers = np.arange(self.store.spec.n_clips)
        there = np.setdiff1d(numbers, np.fromiter(self.store.skipped_clips, np.int64))
        if self.fraction == 1:
            return there
        # One order for all shares, so that a smaller one is part of a larger one.
        order = np.random.default_rng(SUBSET_SEED).permutation(len(there))
        return np.sort(there[order[: max(1, round(self.fraction * len(there)))]])

    @property
    def n_views(self) -> int:
        """How many frozen views of each clip there are to draw from."""
        return self.first_views or self.store.spec.n_views

    @cached_property
    def distinct_views(self) -> int | tuple[int, ...]:
        """Views of each usable clip without repeats: fewer where it is too short for all starts."""
        starts = view_option(self.store, "starts")
        if starts is None:
            return self.n_views
        lengths = np.asarray(self.store.clips.column("n_source"))[self.usable]
        counts = tuple(min(self.n_views, len(Starts(**starts).choices(int(n)))) for n in lengths)
        return counts[0] if len(set(counts)) == 1 else counts

    @cached_property
    def shards(self) -> Int64[np.ndarray, " n"]:
        """The shard of each usable clip."""
        return self.store.shards_of(self.usable)


def split_of(store: FeatureStore, layer: Layer | None = None) -> FeatureSplit:
    """All clips of a finished store at `layer`; None takes the only one it holds.

    Raises:
        StoreError: it does not hold the layer, or holds several and none was named.
    """
    names = ", ".join(known.name for known in store.spec.layers)
    if layer is None and len(store.spec.layers) > 1:
        raise StoreError(f"{store.path} holds layers {names}: say which with --layer.")
    chosen = layer or store.spec.layers[0]
    if chosen not in store.spec.layers:
        raise StoreError(
            f"{store.path} holds layers {names}, not {chosen.name}: extract it with --layers {chosen.name}."
        )
    return FeatureSplit(store=store, layer=chosen)


def draws_of(split: FeatureSplit, *, batch: int, seed: int, mix_shards: int = 0) -> Draws:
    """Which clips and views of a split each step of training takes."""
    return Draws(
        n_clips=len(split.usable),
        n_views=split.distinct_views,
        batch=batch,
        seed=seed,
        shards=split.shards if mix_shards else None,
        mix_shards=mix_shards,
    )


def targets_fingerprint(split: FeatureSplit) -> str | None:
    """Fingerprint of a split's targets; None where the task has none."""
    reference = split.store.header.targets
    return None if reference is None else reference.fingerprint


def split_decisions(split: FeatureSplit) -> dict[str, Any]:
    """Whatever of a split decides a run's numbers: its features, its targets, the replay of up-sampling."""
    replay = {name: split.store.attrs[name] for name in ("upsampling", "readout_steps")}
    features = {"features": split.store.fingerprint, "layer": split.layer.name}
    # Which clips were skipped is not in a store's fingerprint: another machine may read them all.
    skipped = {"skipped": sorted(split.store.skipped_clips)} if split.store.skipped_clips else {}
    return {**features, "targets": targets_fingerprint(split), **replay, **skipped}


def view_option(store: FeatureStore, name: str) -> Any:
    """One entry of the fingerprint part `views`, such as the seed; None where the store has none."""
    views = store.parts.get("views")
    return views.get(name) if isinstance(views, Mapping) else None
