"""Which stores and weights a tuned run is given, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache import synthetic
from featcache.backbones import load_backbone
from featcache.errors import CallError, StoreError, WeightsError
from featcache.manifest import load_manifest
from featcache.system.console import silent
from readouts.features.batches import training_batches
from readouts.tasks import load_task
from readouts.tokens.prepared import prepare_batch
from readouts.training.settings import configure
from readouts.training.step import TrainState, build_preparation, take_step, take_tuned_step
from readouts.training.tuning import given_to
from readouts.tuning.backbone import layer_seen
from readouts.tuning.opening import open_run_splits
from readouts.tuning.wish import Wish

CPU = torch.device("cpu")
TWO = Wish(blocks=2, backbone_lr=0.5)
TRACKED = ("steps=5", "warmup=1", "batch=3", "lr=0.02", "width=16", "heads=2")


@pytest.fixture(scope="module")
def tracked(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Stores of windows of scenes, behind the first block and at the layer that readouts see."""
    scenes = replace(place, task="stir", data=tmp_path_factory.mktemp("scenes"))
    synthetic.generate("movi", scenes.data, profile={"train": 2})
    synthetic.generate("stir", scenes.data, profile={"full_val": 1})
    scenes.extract("--layers", "1,3", "--split", "train,val")
    return scenes


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


def test_trackers_learn_the_same_from_pixels_from_the_cache_and_frozen(tracked: Any) -> None:
    """A backbone that hardly moves leaves them the frozen one's losses, and gets one gradient either way."""
    still = 1e-9
    frozen, _ = _tracking(tracked, None)
    upper, upper_moments = _tracking(tracked, Wish(blocks=2, backbone_lr=still))
    whole, whole_moments = _tracking(tracked, Wish(blocks=None, backbone_lr=still))
    for losses in (upper, whole):
        torch.testing.assert_close(losses, frozen, rtol=2e-3, atol=1e-4)
    assert upper_moments and upper_moments.keys() < whole_moments.keys()
    for name, found in upper_moments.items():
        expected = whole_moments[name]
        apart = float((found - expected).norm() / expected.norm())
        assert apart < 0.02, (name, apart)


def _tracking(tracked: Any, wish: Wish | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Losses [step head] of five steps; by name the means of the gradients that the backbone got."""
    known = load_manifest()
    task = load_task(tracked.task, known)
    splits, tuning = open_run_splits(tracked.asked(), task, known, wish, silent)
    heads = ("tracking", "correlation")
    run = configure(task, splits, readouts=heads, settings=TRACKED, tuning=tuning)
    state, prepare = TrainState(run, CPU), build_preparation(run)
    losses = []
    for batch in training_batches(
        run.training, task.select, run.draws, range(5), CPU, feed=run.feed("train")
    ):
        if wish is None:
            (found,) = take_step([state], prepare_batch(prepare, batch.tokens), batch.targets)
        else:
            found = take_tuned_step(state, given_to(batch), prepare, batch.targets)
        losses.append(torch.stack([found[head] for head in heads]))
    learning = () if state.backbone is None else state.backbone.module.named_parameters()
    moments = {name: state.optimizer.state[p].get("exp_avg") for name, p in learning if p.requires_grad}
    return torch.stack(losses), {name: found for name, found in moments.items() if found is not None}
