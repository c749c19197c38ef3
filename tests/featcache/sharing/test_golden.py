"""Golden values by hand, equal tokens, tokens that are near, and those of another clip."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import CallError, StoreError
from featcache.sharing.golden import compare, golden_for, golden_of
from featcache.sharing.sources import read_bundle
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from tests.featcache.sharing.small_cache import values_of


def test_the_numbers_are_those_of_the_tokens(stores: dict[str, FeatureStore]) -> None:
    store = stores["train"]
    found = golden_of(store)
    # Clips 0, 3 and 6 of those there are (4 was skipped), of the first its last view.
    assert [(one.clip, one.view, one.layer) for one in found] == [
        (f"train-{clip}", view, layer)
        for layer in ("11", "12_normed")
        for clip, view in ((0, 1), (2, 0), (6, 0))
    ]
    tokens = values_of(store.spec, Layer(11), "train")[0, 1]
    first = found[0]
    assert first.sha256 == sha256(tokens.tobytes()).hexdigest() and first.digest == f"{0:016x}"
    assert first.mean == pytest.approx(tokens.astype(float).mean())
    assert first.std == pytest.approx(tokens.astype(float).std())
    assert (first.numbers[0], first.numbers[-1]) == (tokens.ravel()[0], tokens.ravel()[-1])


def test_a_store_agrees_with_itself(stores: dict[str, FeatureStore]) -> None:
    agreement = compare(stores["val"], golden_of(stores["val"]))
    assert str(agreement) == "golden values: all 6 the same, bit for bit"


def test_how_far_others_are_is_told(stores: dict[str, FeatureStore]) -> None:
    (first, *others) = golden_of(stores["val"])
    moved = replace(
        first,
        sha256="0" * 64,
        numbers=(first.numbers[0] + 0.5 * first.std, *first.numbers[1:]),
        mean=first.mean,
    )
    agreement = compare(stores["val"], [moved, *others])
    assert (agreement.n_equal, agreement.n_compared) == (5, 6) and np.isclose(agreement.furthest, 0.5)
    assert str(agreement).endswith("5 of 6 the same, bit for bit; the others up to 0.5 of their spread apart")


def test_another_clip_view_or_layer_is_refused(stores: dict[str, FeatureStore]) -> None:
    first = golden_of(stores["val"])[0]
    for change in ({"clip": "val-9"}, {"digest": "f" * 16}):
        with pytest.raises(StoreError, match=r"has no clip val-. of the source"):
            compare(stores["val"], [replace(first, **change)])  # type: ignore[arg-type]
    for change in ({"view": 1}, {"layer": "5"}, {"clip": "val-4", "digest": f"{4:016x}"}):
        with pytest.raises(StoreError, match=r"has no view . of clip val-. at layer"):
            compare(stores["val"], [replace(first, **change)])  # type: ignore[arg-type]


def test_a_bundle_has_those_of_a_split_and_backbone(stores: dict[str, FeatureStore], bundle: Path) -> None:
    found = golden_for(stores["val"], read_bundle(str(bundle)))
    assert found == golden_of(stores["val"])
    other = FeatureStore(
        stores["val"].path, replace(stores["val"].header, attrs={**stores["val"].attrs, "role": "test"})
    )
    with pytest.raises(CallError, match="the bundle has no golden values for"):
        golden_for(other, read_bundle(str(bundle)))
