"""Fifty steps of the reference's own training, replayed: heads, losses, optimiser and schedule together."""

from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from readouts.heads import load_reference
from readouts.tasks.losses import sigmoid_cross_entropy, squared_error
from readouts.training.optim import ReferenceAdamW, WarmupCosine, global_norm
from tests.readouts.heads.reference.flax import to_reference


def optimizer_of(golden: Any, heads: nn.Module) -> ReferenceAdamW:
    schedule = WarmupCosine(
        peak=golden.optax["peak_value"],
        steps=int(golden.optax["decay_steps"]),
        warmup=int(golden.optax["warmup_steps"]),
        end=golden.optax["end_value"],
    )
    return ReferenceAdamW(
        heads.parameters(),
        schedule=schedule,
        weight_decay=golden.optax["weight_decay"],
        clip_update=golden.optax.get("clip_by_global_norm"),
    )


def heads_of(golden: Any) -> nn.ModuleDict:
    """The heads that are trained together, by name, with the reference's initial values."""
    names = sorted({path.partition("/")[0] for path in golden.under("param/")})
    config = golden.meta["module_kwargs"]
    arguments = {
        "linear": {"num_classes": config["num_classes"], "reduce_axis": [-2, -3]},
        "attention": {name: config[name] for name in ("num_classes", "num_params", "num_heads")},
    }
    heads = nn.ModuleDict()
    for name in names:
        kind = "linear" if "linear" in name else "attention"
        params = golden.under(f"param/{name}/")
        shifted = any(path.startswith("inner_readout/") for path in params)
        wrapped = {"inner_readout": arguments[kind]} if shifted else arguments[kind]
        heads[name] = load_reference(kind, params, **wrapped)
    return heads.train()


def loss_of(head: nn.Module, golden: Any, clips: np.ndarray) -> Tensor:
    batch = {
        name: torch.from_numpy(array[clips])
        for name, array in golden.under("in/").items()
        if len(array) == 64
    }
    tokens = rearrange(batch["video"], "b t h w c -> b t (h w) c")
    if "labels" in batch:
        return sigmoid_cross_entropy(head(inputs=tokens), batch["labels"]).mean
    outputs = head(inputs=tokens, output_offsets=batch["global_mean_pressure"])
    return squared_error(outputs["unshifted_pred"], batch["normalized_pressure"]).mean


def global_gradient_norm(heads: nn.Module) -> float:
    return global_norm([p.grad for p in heads.parameters() if p.grad is not None]).item()


@pytest.mark.golden("train_*")
def test_training_is_the_references(golden: Any) -> None:
    heads = heads_of(golden)
    optimizer = optimizer_of(golden, heads)
    losses, gradient_norms, update_norms = [], [], []
    for clips in golden.arrays["in/batch_index"]:
        before = [parameter.detach().clone() for parameter in heads.parameters()]
        total = torch.stack([loss_of(head, golden, clips) for head in heads.values()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
        gradient_norms.append(global_gradient_norm(heads))
        moved = [p.detach() - old for p, old in zip(heads.parameters(), before, strict=True)]
        update_norms.append(global_norm(moved).item())

    expected = golden.arrays["out/total_loss"]
    np.testing.assert_allclose(losses[:10], expected[:10], rtol=1e-5)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(gradient_norms, golden.arrays["out/grad_norm"], rtol=1e-3)
    np.testing.assert_allclose(update_norms, golden.arrays["out/update_norm"], rtol=5e-3, atol=1e-7)
    for name, head in heads.items():
        initial, final = golden.under(f"param/{name}/"), golden.under(f"out/final_param/{name}/")
        for path, array in to_reference(head).items():
            if not path.endswith("key_embedding/bias"):  # the reference trains it on rounding noise
                moved_most = np.abs(final[path] - initial[path]).max()
                assert np.abs(array - final[path]).max() <= 5e-3 * moved_most, f"{name}/{path}"
