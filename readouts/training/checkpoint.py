"""The file that a killed run goes on from, written and read: weights, moments and step in safetensors.

It is durable before it has its name, so a killed run finds either the old state or the new one, and goes on
bit for bit as if it had not been killed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from featcache.errors import StoreError
from featcache.system.files import Staged, write_all
from readouts.training.optim import ReferenceAdamW


def save_state(path: Path, tensors: Mapping[str, Tensor], **about: Any) -> None:
    """Write tensors and a few JSON values about them: all of it or nothing."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with Staged(path) as staged:
        write_all(staged.fd, [save(whole, {"about": json.dumps(about)})])
        staged.publish()


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint (on the CPU) and what was said about them.

    Raises:
        StoreError: the file is not a checkpoint or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except Exception as problem:  # safetensors raises its own, undocumented kinds
        raise StoreError(f"{path} cannot be read ({problem}): delete it to train anew.") from None


def checkpoint_tensors(heads: nn.Module, optimizer: ReferenceAdamW) -> dict[str, Tensor]:
    """Weights, and both moments of the optimiser, by the weight's name."""
    weights = dict(heads.named_parameters())
    moments = {
        f"{moment}/{name}": value
        for name, weight in weights.items()
        for moment, value in optimizer.state[weight].items()
    }
    return {f"weight/{name}": weight.detach() for name, weight in weights.items()} | moments


def restore(heads: nn.Module, optimizer: ReferenceAdamW, state: Mapping[str, Tensor], step: int) -> None:
    """Put back what `checkpoint_tensors` gave after `step` updates.

    Raises:
        StoreError: it is of other weights.
    """
    weights = dict(heads.named_parameters())
    there = {name.removeprefix("weight/"): t.shape for name, t in state.items() if name.startswith("weight/")}
    if there != {name: weight.shape for name, weight in weights.items()}:
        raise StoreError(
            "the checkpoint is of heads of other weights, of another version of scivid perhaps: train with "
            "--again."
        )
    with torch.no_grad():
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            if kind == "weight":
                weights[name].copy_(tensor)
            else:
                optimizer.state[weights[name]][kind] = tensor.to(weights[name].device)
    for group in optimizer.param_groups:
        group["n_updates"] = step
