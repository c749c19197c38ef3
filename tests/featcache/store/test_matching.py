"""Which stores a readout may be trained on and evaluated on."""

from dataclasses import replace

import pytest

from featcache.errors import StoreError
from featcache.fingerprint import fingerprint
from featcache.store.feature_store import FeatureStore
from featcache.store.matching import compatible


def with_parts(store: FeatureStore, **parts: object) -> FeatureStore:
    changed = {**store.parts, **parts}
    return FeatureStore(store.path, replace(store.header, parts=changed, fingerprint=fingerprint(changed)))


def test_train_and_validation_stores_must_be_of_a_kind(example) -> None:
    store = example().write()
    compatible(store, with_parts(store, clips={"index": "other"}, views={"n_views": 1, "seed": None}))
    other = with_parts(store, backbone={"name": "tiny", "weights": "cd" * 32}, layers=["11"])
    with pytest.raises(StoreError) as problem:
        compatible(store, other)
    assert "  backbone.weights: cdcdcdcdcdcd... here, abababababab... asked for" in str(problem.value)
    assert '  layers: ["11"] here, ["11", "12_normed"] asked for' in str(problem.value)
    grid = replace(store.spec.grid, rows=9)
    resized = FeatureStore(store.path, replace(store.header, spec=replace(store.spec, grid=grid)))
    with pytest.raises(StoreError, match=r"store\.grid\.rows: 9 here, 3 asked for"):
        compatible(store, resized)


def test_int8_tokens_are_of_another_kind(example, tmp_path) -> None:
    store = example(dtype="int8").write()
    other = example(folder=tmp_path / "other").write()
    with pytest.raises(StoreError, match=r'tokens\.dtype: "int8" here, "float16" asked for'):
        compatible(other, store)
