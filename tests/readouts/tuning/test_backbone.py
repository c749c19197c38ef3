"""Which stores and weights a tuned run is given, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.backbones import load_backbone
from featcache.errors import CallError, StoreError, WeightsError
from readouts.tuning.backbone import layer_seen
from readouts.tuning.wish import Wish

TWO = Wish(blocks=2, backbone_lr=0.5)


def test_stores_without_the_tokens_are_told_with_the_command(place: Any) -> None:
    with pytest.raises(StoreError, match=r"--tune 3 of layer 3 begins at block 0 .*--layers 0`"):
        place.run(Wish(blocks=3))
    with pytest.raises(CallError, match="3 blocks up to layer 3: write 1 to 3"):
        place.run(Wish(blocks=4))
    with pytest.raises(StoreError, match=r"no train store of small .*scivid extract .* --layers 2`"):
        place.run(Wish(blocks=1), cache_dir=place.root / "empty")


def test_other_weights_than_the_stores_are_refused(place: Any, tmp_path: Path) -> None:
    with np.load(place.root / "scaling4d_x.npz") as file:
        arrays: dict[str, Any] = {name: file[name] * 2 for name in file.files}
    np.savez(tmp_path / "scaling4d_x.npz", **arrays)
    model = tmp_path / "model.py"
    model.write_text((place.root / "model.py").read_text())
    with pytest.raises(WeightsError, match="is not of these weights of small"):
        place.run(TWO, backbone=f"{model}:BACKBONE")


def test_the_benchmarks_layer_is_taken_where_none_is_named(place: Any) -> None:
    tuning = place.run(TWO, layer=None).tuning
    assert tuning is not None and tuning.layer.name == "3"


def test_a_model_without_a_layer_of_the_benchmarks_own_is_asked_for_one() -> None:
    assert layer_seen(load_backbone("videomae_b"), None).name == "12_normed"
    with pytest.raises(CallError, match="say at which with --layer"):
        layer_seen(load_backbone("videomae_b"), "1,2")


def test_a_store_of_the_last_step_alone_serves_no_blocks(place: Any, make_split: Any) -> None:
    from readouts.tuning.backbone import last_step

    store = make_split("train", np.zeros((3, 1, 2, 2, 2, 4)), np.eye(3, 7))
    assert last_step(store.parts) is None
    store.header.parts["tokens"] = {"dtype": "float16", "steps": {"last": [0.25, 0.75]}}
    assert last_step(store.parts) == [0.25, 0.75]
