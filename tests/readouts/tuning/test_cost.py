"""What a tuned run costs, by hand, and what a block does keep."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.backbones import backbone_info, load_backbone
from featcache.backbones.trainable import TuningMode, trainable
from featcache.spec import Layer
from readouts.tasks.base import Recipe
from readouts.tuning.cost import TuningCost
from readouts.tuning.wish import Wish
from tests.tunable import write_model

B = backbone_info("4ds_b_dist_e")
TWO = TuningCost(info=B, layer=Layer(10), wish=Wish(blocks=2), recipe=Recipe(batch=32, steps=40_000))


def test_operations_are_three_passes_of_the_tuned_blocks() -> None:
    assert B.gflop is not None
    assert TWO.step_tflop == pytest.approx(3 * 32 * B.gflop * 2 / 12 / 1e3)
    assert TWO.times_online == pytest.approx((8 + 3 * 2) / (3 * 2))
    whole = replace(TWO, wish=Wish(blocks=None))
    # What the reference's compiled step has for it: 30.0 TFLOP, heads included.
    assert whole.step_tflop == pytest.approx(28, abs=3) and whole.times_online == 1
    again = replace(TWO, wish=Wish(blocks=2, micro_batch=8, checkpointing=True))
    assert again.passes == 5


def test_memory_is_that_of_the_tuned_blocks() -> None:
    assert TWO.weights == pytest.approx(B.params_m * 1e6 / 6)
    assert TWO.activation_bytes == 32 * 2 * 16 * 4 * 1568 * 768
    assert replace(TWO, wish=Wish(blocks=2, micro_batch=8)).activation_bytes == TWO.activation_bytes / 4
    kept = replace(TWO, wish=Wish(blocks=2, checkpointing=True)).activation_bytes
    assert kept == 32 * (2 + 16) * 4 * 1568 * 768


def test_sentences_say_what_and_the_way_to_less() -> None:
    work, memory = TWO.sentences()
    assert work.startswith("--tune 2 runs blocks 9 to 10 of 4ds_b_dist_e, forward and backward, for 32 clips")
    assert ", about 5.77 TFLOP a step and 231 PFLOP in all, 19.2 minutes at 200 TFLOP/s" in work
    assert "with the 8 below in each step" in work
    assert "2.3 times as much" in work
    assert "14.6 M tuned weights" in memory and "--micro-batch or --checkpoint-blocks" in memory
    (work, memory) = replace(TWO, wish=Wish(blocks=None, micro_batch=8, checkpointing=True)).sentences()
    assert work.startswith("--tune all decodes 32 clips and runs 4ds_b_dist_e up to layer 10")
    assert "of 8 clips" in memory and "less with" not in memory
    unknown = replace(TWO, info=replace(B, gflop=None), wish=Wish(blocks=1), layer=Layer(1))
    assert "TFLOP" not in unknown.sentences()[0] and "runs block 1 of" in unknown.sentences()[0]
    assert "no block below" in unknown.sentences()[0]


@pytest.mark.parametrize(("checkpointing", "kept"), [(False, 16), (True, 1)])
def test_a_block_keeps_what_is_said(tmp_path: Path, checkpointing: bool, kept: int) -> None:
    """Of 12 channels and an MLP of 20 it is less than of one that is four times as wide."""
    backbone: Any = load_backbone(write_model(tmp_path))
    mode = TuningMode(checkpointing=checkpointing)
    model = trainable(backbone, Layer(3), torch.device("cpu"), begin=1, mode=mode)
    seen: dict[int, int] = {}

    def noted(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = torch.rand(3, 8, 4, 12)
    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        model(tokens)
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    total = sum(n for at, n in seen.items() if at not in own)
    a_block = total / 2 / (4 * tokens.numel())
    narrower = kept - (0 if checkpointing else 2 * (4 - 20 / 12))
    assert a_block == pytest.approx(narrower, rel=0.12)


def test_a_plan_tells_the_cost_and_of_which_store(place: Any) -> None:
    words = ["--backbone", place.backbone, "--task", "flyvsfly", "--data-dir", place.data]
    code, said = place.scivid("plan", *words, "--layers", "3", "--tune", "2")
    assert code == 0, said
    assert "small on flyvsfly: layer 1 in float16" in said
    assert "--tune 2 runs blocks 2 to 3 of small" in said and "tuned weights" in said
    code, said = place.scivid("plan", *words, "--tune", "9")
    assert code == 2 and "write 1 to" in said
