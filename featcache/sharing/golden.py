"""A few numbers that tell whether two stores hold the same tokens, for whoever has one of them alone.

A bundle has those of its stores. Its receiver compares what came; who has weights and data too, extracts and
compares that: on a CPU the bits are the same, on other hardware the numbers are as near as its rounding.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from featcache.errors import StoreError
from featcache.sharing.bundle import Golden
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore

N_CLIPS = 3
N_NUMBERS = 8


def golden_of(store: FeatureStore) -> tuple[Golden, ...]:
    """The golden values of a finished store: of a few clips at every layer.

    Raises:
        StoreError: a chunk is damaged or missing.
    """
    clips = [clip for clip in range(store.spec.n_clips) if clip not in store.skipped_clips]
    if not clips:
        return ()
    last = len(clips) - 1
    chosen = sorted({clips[i * last // (N_CLIPS - 1)] for i in range(N_CLIPS)})
    # The last view of the first clip, so that drawn views are among them.
    views = [store.spec.n_views - 1, *[0] * (len(chosen) - 1)]
    return tuple(
        _golden(store, layer, clip, view)
        for layer in store.spec.layers
        for clip, view in zip(chosen, views, strict=True)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How a store's tokens compare with golden values."""

    n_compared: int
    n_equal: int
    """Those of the same bits."""
    furthest: float
    """The largest distance of two numbers, in standard deviations of the golden tokens."""

    def __str__(self) -> str:
        if self.n_equal == self.n_compared:
            return f"golden values: all {self.n_compared} the same, bit for bit"
        return (
            f"golden values: {self.n_equal} of {self.n_compared} the same, bit for bit; the others up to "
            f"{self.furthest:.1g} of their spread apart"
        )


def compare(store: FeatureStore, golden: Iterable[Golden]) -> Agreement:
    """Hold a store's tokens against golden values.

    Raises:
        StoreError: it lacks a clip, view or layer that they are of, or a chunk is damaged.
    """
    rows = {str(clip): row for row, clip in enumerate(store.clips["id"].to_pylist())}
    digests = store.clips["digest"].to_pylist()
    found = []
    for one in golden:
        row = rows.get(one.clip)
        if row is None or digests[row] != one.digest:
            raise StoreError(f"{store.path} has no clip {one.clip} of the source {one.digest}: other data.")
        layer = Layer.parse(one.layer)
        if layer not in store.spec.layers or one.view >= store.spec.n_views or row in store.skipped_clips:
            raise StoreError(f"{store.path} has no view {one.view} of clip {one.clip} at layer {one.layer}.")
        found.append((one, _golden(store, layer, row, one.view)))
    apart = [_distance(wanted, here) for wanted, here in found if wanted.sha256 != here.sha256]
    return Agreement(n_compared=len(found), n_equal=len(found) - len(apart), furthest=max(apart, default=0.0))


def _distance(wanted: Golden, here: Golden) -> float:
    pairs = zip((wanted.mean, *wanted.numbers), (here.mean, *here.numbers), strict=True)
    return max(abs(a - b) for a, b in pairs) / max(wanted.std, float(np.finfo(np.float16).tiny))


def _golden(store: FeatureStore, layer: Layer, clip: int, view: int) -> Golden:
    tokens = store.read([clip], views=view, layer=layer, threads=1)[0]
    flat = tokens.ravel()
    at = np.linspace(0, flat.size - 1, N_NUMBERS).round().astype(int)
    wide = flat.astype(np.float64)
    return Golden(
        clip=store.clips["id"][clip].as_py(),
        digest=store.clips["digest"][clip].as_py(),
        view=view,
        layer=layer.name,
        sha256=sha256(tokens.astype("<f2").tobytes()).hexdigest(),
        mean=float(wide.mean()),
        std=float(wide.std()),
        numbers=tuple(flat[at].astype(float).tolist()),
    )
