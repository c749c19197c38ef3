"""The reference's own fine-tuning, replayed: whole and partial, from pixels and from stored tokens.

The blocks after the read-out, which the reference makes and decays, are not made here (FINETUNE: they move by
nothing in float32 at its own settings) and not compared.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.readouts.training.finetune_traces import MakeOptimizer, Replay, ours, tolerances


def is_partial(golden: Any) -> bool:
    return "frozen" in golden.meta


@pytest.mark.golden("finetune_*")
def test_fine_tuning_is_the_references(golden: Any, tmp_path: Path) -> None:
    begin = golden.meta["frozen"]["blocks"] if is_partial(golden) else None
    replay = Replay(golden, tmp_path, begin=begin)
    given = replay.pixels() if begin is None else replay.lower(begin)
    check(replay.run(given, ours), golden)
    if begin is not None:
        cached = Replay(golden, tmp_path, begin=begin)
        torch.testing.assert_close(cached.cached(), given, rtol=0, atol=1e-5 * float(given.abs().max()))
        check(cached.run(cached.cached(), ours), golden)
        assert cached.losses == pytest.approx(replay.losses, rel=5e-5)


def check(replay: Replay, golden: Any) -> None:
    first, losses, parameters = tolerances(golden)
    of_first, of_all = replay.loss_errors()
    assert of_first <= first and of_all <= losses
    errors = replay.parameter_errors()
    assert max(errors.values()) <= parameters, max(errors, key=lambda path: errors[path])


class Wrong:
    """AdamW with one thing wrong, written out."""

    def __init__(self, golden: Any, backbone: list[Tensor], heads: list[Tensor], wrong: str) -> None:
        self.right, self.wrong = ours(golden, backbone, heads), wrong
        self.clip: float = golden.optax.get("clip_by_global_norm", float("inf"))
        self.decay = golden.optax["weight_decay"]
        self.multipliers = [(p, golden.optax["scale_backbone"]) for p in backbone] + [(p, 1.0) for p in heads]
        self.moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in (*backbone, *heads)}

    @torch.no_grad()
    def step(self) -> None:
        """One update."""
        k = self.right.n_updates
        lr = self.right.schedule(k)
        self.right.param_groups[0]["n_updates"] += 1
        gradients = {p: p.grad for p, _ in self.multipliers if p.grad is not None}
        if self.wrong == "gradient":
            factor = self._factor(list(gradients.values()))
            gradients = {p: gradient * factor for p, gradient in gradients.items()}
        updates = {}
        for p, gradient in gradients.items():
            first, second = self.moments[p]
            first.lerp_(gradient, 0.1)
            second.lerp_(gradient.square(), 0.001)
            adam = first / (1 - 0.9 ** (k + 1)) / ((second / (1 - 0.999 ** (k + 1))).sqrt() + 1e-8)
            decayed = self.decay * p if p.ndim > 1 or self.wrong != "biases" else 0.0
            updates[p] = -lr * (adam + decayed)
        scaled = {p: updates[p] * multiplier for p, multiplier in self.multipliers if p in updates}
        if self.wrong == "gradient":
            factor = torch.ones(())
        else:
            factor = self._factor(list((scaled if self.wrong == "scale first" else updates).values()))
        for p, update in scaled.items():
            p += update * factor

    def _factor(self, tensors: list[Tensor]) -> Tensor:
        norm = torch.stack([tensor.norm() for tensor in tensors]).norm()
        return self.clip / norm.clamp(min=self.clip) if self.clip < float("inf") else torch.ones(())


def making(wrong: str) -> MakeOptimizer:
    return lambda golden, backbone, heads: Wrong(golden, backbone, heads, wrong)


@pytest.mark.golden("finetune_reg_clip")
def test_the_written_out_optimiser_is_right_where_nothing_is_wrong(golden: Any, tmp_path: Path) -> None:
    replay = Replay(golden, tmp_path)
    check(replay.run(replay.pixels(), making("nothing")), golden)


@pytest.mark.parametrize("wrong", ["scale first", "gradient", "biases"])
@pytest.mark.golden("finetune_reg_clip")
def test_another_order_is_told_apart(golden: Any, tmp_path: Path, wrong: str) -> None:
    replay = Replay(golden, tmp_path)
    replay.run(replay.pixels(), making(wrong))
    _, _, parameters = tolerances(golden)
    assert max(replay.parameter_errors().values()) > 10 * parameters
