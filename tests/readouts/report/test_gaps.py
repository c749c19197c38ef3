"""What cannot be made costs its own part of a page and is said once; what interrupts is not held up."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from featcache.errors import StoreError
from featcache.store.feature_store import FeatureStore
from readouts.report.gaps import Gaps, pictures_of


def test_whatever_goes_wrong_is_said_once() -> None:
    gaps = Gaps()
    for _ in range(2):
        with gaps.around("curves"):
            raise StoreError("h.jsonl is damaged: train again.")
        with gaps.around("curves"):
            _ = {}["step"]
    assert gaps.messages == ["h.jsonl is damaged: train again.", "curves: KeyError: 'step'"]


def test_an_interrupt_is_no_gap() -> None:
    gaps = Gaps()
    with pytest.raises(KeyboardInterrupt), gaps.around("curves"):
        raise KeyboardInterrupt
    assert gaps.messages == []


@pytest.fixture
def store(make_split: Callable[..., FeatureStore]) -> FeatureStore:
    return make_split("val", np.zeros((2, 1, 2, 2, 2, 8)), np.zeros((2, 7), int))


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 16)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_damaged_picture_costs_this_picture(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gaps, whole = Gaps(), jpeg()
    strips = {3: whole, 5: whole[:-200], 7: b"no picture", 8: whole}
    monkeypatch.setattr(FeatureStore, "previews", lambda self: strips)
    assert list(pictures_of(store, gaps)) == [3, 8]
    assert [message.partition(":")[0] for message in gaps.messages] == [
        f"preview of clip {clip} of {store.path}" for clip in (5, 7)
    ]


def test_damaged_previews_are_none(store: FeatureStore) -> None:
    gaps = Gaps()
    (store.path / "previews.parquet").write_bytes(b"damaged")
    assert pictures_of(store, gaps) == {}
    assert len(gaps.messages) == 1
