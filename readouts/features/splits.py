"""What a split is: a finished store at its layers, or a part of it; what of it decides a run's numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int16, Int64

from featcache.errors import CallError, StoreError
from featcache.resampling import Method
from featcache.spec import Layer, Starts, TokenGrid
from featcache.store.feature_store import FeatureStore
from featcache.store.targets import Targets
from readouts.features.draws import Draws
from readouts.features.orders import MOST_LISTED, Bijection

SUBSET_SEED = 0
"""Seed of the order in which smaller shares of a split's clips are cut off."""

EVERY_LAYER = "all"
"""What names all layers of a store."""

BESIDE = "+"
"""Between the names of layers that are read together: `3+6+9`."""


@dataclass(frozen=True, kw_only=True)
class FeatureSplit:
    """One finished store with its targets, at one layer or several; or a part of it."""

    store: FeatureStore
    layers: tuple[Layer, ...]
    """What is read of each clip, each layer once, the shallowest first."""
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

    @property
    def layer(self) -> Layer:
        """The only layer.

        Raises:
            CallError: there are several.
        """
        if len(self.layers) > 1:
            raise CallError(f"layers {self.layer_name} are read together: name one layer for this.")
        return self.layers[0]

    @property
    def layer_name(self) -> str:
        """The name of the layer, or those of all, as the results table has it: `11`, `3+6+9`."""
        return BESIDE.join(layer.name for layer in self.layers)

    @cached_property
    def targets(self) -> Targets | None:
        """The targets, opened but not loaded; None where the split has none."""
        return self.store.targets

    @cached_property
    def n_usable(self) -> int:
        """How many clips hold features (those skipped at extraction do not), or are in the share."""
        return self._n_there if self._share is None else len(self._share)

    def clips_at(self, positions: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The numbers of the usable clips at these positions among them; costs what is asked for."""
        return self._there(positions) if self._share is None else self._share[positions]

    def first_usable(self, most: int | None = None) -> Int64[np.ndarray, " n"]:
        """The numbers of the first usable clips, all without `most`."""
        n = self.n_usable
        return self.clips_at(np.arange(n if most is None else min(n, most)))

    @cached_property
    def usable(self) -> Int64[np.ndarray, " n"]:
        """The numbers of all usable clips in their order, for what needs each of them."""
        return self.first_usable()

    @property
    def _n_there(self) -> int:
        return self.store.spec.n_clips - len(self._skipped)

    @cached_property
    def _skipped(self) -> Int64[np.ndarray, " n"]:
        return np.sort(np.fromiter(self.store.skipped_clips, np.int64))

    def _there(self, positions: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The clips that hold features at some positions among these."""
        before = self._skipped - np.arange(len(self._skipped))
        return positions + np.searchsorted(before, positions, side="right")

    @cached_property
    def _share(self) -> Int64[np.ndarray, " n"] | None:
        """The clips of a share of the split, in the order of the file; None of the whole."""
        if self.fraction == 1:
            return None
        # One order for all shares, so that a smaller one is part of a larger one.
        n, kept = self._n_there, max(1, round(self.fraction * self._n_there))
        if n <= MOST_LISTED:
            first = np.random.default_rng(SUBSET_SEED).permutation(n)[:kept]
        else:
            first = Bijection(n, [SUBSET_SEED]).at(np.arange(kept))
        return self._there(np.sort(first))

    @property
    def n_views(self) -> int:
        """How many frozen views of each clip there are to draw from."""
        return self.first_views or self.store.spec.n_views

    @cached_property
    def distinct_views(self) -> int | tuple[int, ...] | Int16[np.ndarray, " n"]:
        """Views of each usable clip without repeats: fewer where it is too short for all starts."""
        starts = view_option(self.store, "starts")
        if starts is None:
            return self.n_views
        # Few lengths come up, each in many clips.
        of_clip = []
        for block in self.store.clip_table.blocks("n_source"):
            lengths, which = np.unique(block.column(0), return_inverse=True)
            of_length = [min(self.n_views, len(Starts(**starts).choices(int(n)))) for n in lengths]
            of_clip.append(np.array(of_length, np.int16)[which])
        counts = np.concatenate(of_clip)
        if self.n_usable < len(counts):
            counts = counts[self.usable]
        if (counts == counts[0]).all():
            return int(counts[0])
        return counts if len(counts) > MOST_LISTED else tuple(counts.tolist())

    @cached_property
    def shards(self) -> Int64[np.ndarray, " n"]:
        """The shard of each usable clip."""
        return self.store.shards_of(self.usable)

    @cached_property
    def shard_sizes(self) -> Int64[np.ndarray, " shard"]:
        """The number of usable clips of each shard, where rows are clips."""
        spec = self.store.spec
        if self._share is not None:
            return np.bincount(self._share // spec.clips_per_shard, minlength=spec.n_shards)
        sizes = np.full(spec.n_shards, spec.clips_per_shard, np.int64)
        sizes[-1] = len(spec.rows_of_shard(spec.n_shards - 1))
        return sizes - np.bincount(self._skipped // spec.clips_per_shard, minlength=spec.n_shards)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensRead:
    """The tokens that heads see, as they are built anew without the store; `parts` say what made them."""

    grid: TokenGrid
    """Of a clip, as stored."""
    layers: tuple[Layer, ...]
    steps: int
    """Of a clip, as heads see them: those of the reference's readouts, or the backbone's own."""
    upsampling: Method | None
    """What makes the one of the other; None where nothing does."""
    parts: Mapping[str, Any]
    """Of the fingerprint of the training split's features."""

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        return asdict(self) | {"layers": [layer.name for layer in self.layers], "parts": dict(self.parts)}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "TokensRead":
        """Read back what `to_json` gave."""
        layers = tuple(Layer.parse(name) for name in kept["layers"])
        return cls(**{**kept, "grid": TokenGrid(**kept["grid"]), "layers": layers})


def tokens_read(split: FeatureSplit) -> TokensRead:
    """What the heads of a run on this split read."""
    store = split.store
    return TokensRead(
        grid=store.spec.grid,
        layers=split.layers,
        steps=store.attrs["readout_steps"] or store.spec.grid.steps,
        upsampling=store.attrs["upsampling"],
        parts=store.parts,
    )


def split_of(store: FeatureStore, layers: Sequence[Layer] | None = None) -> FeatureSplit:
    """All clips of a finished store at `layers`; None takes the only one it holds.

    Raises:
        StoreError: it does not hold a layer, or holds several and none was named.
    """
    names = ", ".join(known.name for known in store.spec.layers)
    if layers is None and len(store.spec.layers) > 1:
        raise StoreError(
            f"{store.path} holds layers {names}: say which with --layer (for readouts of several layers also "
            f"--layer {EVERY_LAYER}, or some: --layer {BESIDE.join(names.split(', ')[:2])})."
        )
    chosen = tuple(sorted(set(layers or store.spec.layers)))
    if missing := [layer.name for layer in chosen if layer not in store.spec.layers]:
        listed = ",".join(missing)
        raise StoreError(
            f"{store.path} holds layers {names}, not {listed}: extract it with --layers {listed}."
        )
    return FeatureSplit(store=store, layers=chosen)


def parse_layers(text: str, store: FeatureStore) -> tuple[Layer, ...]:
    """The layers that `--layer` names: `11`, several as `3,6,9` or `3+6+9`, `all` for those of the store.

    Raises:
        CallError: that is no layer's name.
    """
    if text == EVERY_LAYER:
        return store.spec.layers
    return tuple(Layer.parse(name.strip()) for name in text.replace(BESIDE, ",").split(","))


def draws_of(split: FeatureSplit, *, batch: int, seed: int, mix_shards: int = 0) -> Draws:
    """Which clips and views of a split each step of training takes."""
    sizes = mix_shards > 0 and split.n_usable > MOST_LISTED and split.store.spec.n_frames is None
    return Draws(
        n_clips=split.n_usable,
        n_views=split.distinct_views,
        batch=batch,
        seed=seed,
        shards=split.shards if mix_shards and not sizes else None,
        shard_sizes=split.shard_sizes if sizes else None,
        mix_shards=mix_shards,
    )


def targets_fingerprint(split: FeatureSplit) -> str | None:
    """Fingerprint of a split's targets; None where the task has none."""
    reference = split.store.header.targets
    return None if reference is None else reference.fingerprint


def split_decisions(split: FeatureSplit) -> dict[str, Any]:
    """Whatever of a split decides a run's numbers: its features, its targets, the replay of up-sampling."""
    replay = {name: split.store.attrs[name] for name in ("upsampling", "readout_steps")}
    features = {"features": split.store.fingerprint, "layer": split.layer_name}
    # Which clips were skipped is not in a store's fingerprint: another machine may read them all.
    skipped = {"skipped": sorted(split.store.skipped_clips)} if split.store.skipped_clips else {}
    return {**features, "targets": targets_fingerprint(split), **replay, **skipped}


def view_option(store: FeatureStore, name: str) -> Any:
    """One entry of the fingerprint part `views`, such as the seed; None where the store has none."""
    views = store.parts.get("views")
    return views.get(name) if isinstance(views, Mapping) else None
