"""A few numbers that tell whether two stores hold the same tokens, for whoever has one of them alone.

A bundle has those of its stores. Its receiver compares what came; who has weights and data too, extracts and
compares that: the same bits from the same batches on the same kind of processor, else as near as rounding is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from featcache.errors import CallError, StoreError, few
from featcache.sharing.bundle import Bundle, Golden
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


def golden_for(store: FeatureStore, bundle: Bundle) -> tuple[Golden, ...]:
    """The golden values that a bundle has for the split and backbone of a store, at the layers it holds.

    Raises:
        CallError: it has none.
    """
    task, role, backbone = (store.attrs.get(name) for name in ("task", "role", "backbone"))
    beginning, layers = f"{task}/{role}/{backbone}-", {layer.name for layer in store.spec.layers}
    folders = [folder for folder in bundle.folders if folder.path.startswith(beginning)]
    # Of several the very one; an extraction in another precision has another name than the bundle's.
    folders = [one for one in folders if one.path.endswith(f"/{store.path.name}")] or folders
    found = tuple(one for folder in folders for one in folder.golden if one.layer in layers)
    if not found:
        raise CallError(
            f"the bundle has no golden values for {store.path}: {few(f.path for f in bundle.folders)}."
        )
    return found


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
