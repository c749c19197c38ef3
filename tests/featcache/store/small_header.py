"""A small store's header, for the tests of headers and of what compares them."""

from typing import Any

from featcache.fingerprint import fingerprint
from featcache.spec import Layer, TokenGrid
from featcache.store.header import StoreHeader, TargetsReference
from featcache.store.spec import FeatureSpec

SPEC = FeatureSpec(
    grid=TokenGrid(steps=2, rows=3, columns=4, channels=5),
    layers=(Layer(11), Layer(12, normed=True)),
    n_clips=7,
    n_views=2,
    clips_per_shard=3,
)
PARTS = {"backbone": {"weights": "ab" * 32}, "layers": ["11", "12_normed"]}


def header(**changes: Any) -> StoreHeader:
    given: dict[str, Any] = {
        "spec": SPEC,
        "fingerprint": fingerprint(PARTS),
        "parts": PARTS,
        "frames_digest": "ab" * 32,
        "clips_digest": "cd" * 32,
        "targets": TargetsReference(path="../targets-0.zarr", fingerprint="ef" * 32),
        "provenance": {"software": {"torch": "2.6"}},
        "attrs": {"task": "t", "exactness": "exact"},
    }
    return StoreHeader(**{**given, **changes})
