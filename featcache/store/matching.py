"""Whether a readout that learned from one store can be evaluated on another."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from featcache.errors import StoreError
from featcache.fingerprint import differences
from featcache.store.feature_store import FeatureStore
from featcache.store.header import listed

OF_THE_SPLIT = frozenset({"clips", "views"})
"""Fingerprint parts in which a training and a validation store may differ."""


def compatible(train: FeatureStore, val: FeatureStore) -> None:
    """Refuse two stores that hold features of different kinds; their clips and views may differ.

    Raises:
        StoreError: backbone, preprocessing, layers or tokens differ; lists in what.
    """
    ours, theirs = _kind_of_features(val), _kind_of_features(train)
    if _dataset_of(train) != _dataset_of(val):
        # How files of another data set are decoded is part of which clips they are.
        ours.pop("decoding", None)
        theirs.pop("decoding", None)
    found = differences(ours, theirs)
    if found:
        raise StoreError(
            f"{val.path} cannot be evaluated with a readout trained on {train.path}:\n{listed(found)}\n"
            "(here: the validation store; asked for: as in training). Extract both with the same options."
        )


def _dataset_of(store: FeatureStore) -> Any:
    clips = store.parts.get("clips")
    return clips.get("dataset") if isinstance(clips, Mapping) else None


def _kind_of_features(store: FeatureStore) -> dict[str, Any]:
    shape = {"grid": asdict(store.spec.grid), "layers": [layer.name for layer in store.spec.layers]}
    return {name: part for name, part in store.parts.items() if name not in OF_THE_SPLIT} | {"store": shape}
