"""What cannot be made costs its own part of a page and is said once; what interrupts is not held up."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from featcache.errors import StoreError
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


@dataclass
class Store:
    """What is asked of a store here."""

    strips: dict[int, bytes] | None
    path: Path = Path("val/toy.zarr")

    def previews(self) -> dict[int, bytes]:
        if self.strips is None:
            raise StoreError("previews.parquet is damaged.")
        return self.strips


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 16)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_damaged_picture_costs_this_picture() -> None:
    gaps, whole = Gaps(), jpeg()
    store = cast(Any, Store({3: whole, 5: whole[:-200], 7: b"no picture", 8: whole}))
    assert list(pictures_of(store, gaps)) == [3, 8]
    assert [message.partition(":")[0] for message in gaps.messages] == [
        "preview of clip 5 of val/toy.zarr",
        "preview of clip 7 of val/toy.zarr",
    ]


def test_damaged_previews_are_none() -> None:
    gaps = Gaps()
    assert pictures_of(cast(Any, Store(None)), gaps) == {}
    assert gaps.messages == ["previews.parquet is damaged."]
