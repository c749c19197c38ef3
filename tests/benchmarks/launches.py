"""What a training step of sixteen equal readouts asks of a device, beside that of one: calls, and memory.

Calls are counted on torch's meta device, where heads go as they go on a GPU: kernels that torch dispatches,
of which what only makes a view launches none and one of a list of tensors counts as one. Readouts that read
the tokens themselves go as one where there is room for what their backward passes need
(`readouts.training.room`): calls are counted with room for all, and memory without any, where they go one by
one. It is counted there as well: the bytes that live tensors hold at the peak beyond tokens, weights and
gradients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from readouts.heads import HEADS, Readout, build_head
from readouts.tokens.implicit import TemporalResize
from readouts.tokens.prepared import TokenPreparation
from readouts.training.optim import ReferenceAdamW, step_together
from readouts.training.room import LiveBytes
from readouts.training.stack import Stack, in_stacks, losses_of
from readouts.training.step import backward
from tests.benchmarks.side_by_side import Claim

META = torch.device("meta")
N_HEADS = 16


class Calls(TorchDispatchMode):
    """Counts the kernels that are called while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += not func.is_view and func._schema.name != "aten::detach"
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A step of some equal heads on the meta device, each with a rate of its own."""

    heads: Mapping[str, Readout]
    prepare: TokenPreparation
    tokens: Tensor
    inputs: Mapping[str, Tensor]

    @classmethod
    def of(cls, kind: str, n_heads: int, *, small: bool) -> "_Step":
        channels, side, n_clips = (8, 2, 2) if small else (768, 14, 32)
        heads = {
            str(i): build_head(
                kind,
                channels=channels,
                steps=16,
                n_outputs=4,
                rows=side,
                columns=side,
                **_settings(kind, small),
            ).to(META)
            for i in range(n_heads)
        }
        prepare = TokenPreparation(steps_in=8, steps_out=16, method="linear")
        on_cpu = TemporalResize.by(prepare.matrix)
        prepare = prepare.to(META)
        lags = tuple(lag.to(META) for lag in on_cpu.lags)
        prepare._resize = TemporalResize(matrix=prepare.matrix, lags=lags)
        tokens = torch.empty(n_clips, 8, side**2, channels, dtype=torch.float16, device=META)
        tracks = HEADS[kind].gives == "tracks"
        inputs = {"queries": torch.empty(n_clips, 3, 2, device=META)} if tracks else {}
        return cls(heads=heads, prepare=prepare, tokens=tokens, inputs=inputs)

    def backward(self, units: Mapping[tuple[str, ...], Readout]) -> None:
        backward(units, self.prepare(self.tokens), self.inputs, partial(losses_of, _mean_square))


def launches(kind: str, n_heads: int, *, small: bool) -> int:
    """Calls of a whole step of so many equal heads."""
    step = _Step.of(kind, n_heads, small=small)
    optimizers = [
        ReferenceAdamW(head.parameters(), schedule=lambda update, i=i: 1e-3 * (i + 1))
        for i, head in enumerate(step.heads.values())
    ]
    units = in_stacks(step.heads, dict.fromkeys(step.heads, ""), META)
    calls = Calls()
    for watched in (False, True):
        with calls if watched else Calls():
            step.backward(units)
            for unit in units.values():
                if isinstance(unit, Stack):
                    unit.hand_out_gradients()
            step_together(optimizers)
            for optimizer in optimizers:
                optimizer.zero_grad()
    return calls.n


def memory_of(kind: str, n_heads: int, *, small: bool) -> float:
    """MB that a backward pass of so many heads, which read the tokens themselves, holds at its peak."""
    step = _Step.of(kind, n_heads, small=small)
    weights = [weight for head in step.heads.values() for weight in head.parameters()]
    with LiveBytes() as held:
        step.backward({(name,): head for name, head in step.heads.items()})
    gradients = sum(weight.grad.nbytes for weight in weights if weight.grad is not None)
    return (held.peak - gradients) / 1e6


def _settings(kind: str, small: bool) -> Mapping[str, Any]:
    if kind == "dpt":
        return {"features": 8, "head_channels": 8, "out_rows": 9, "out_columns": 18}
    if kind in ("correlation", "linear"):
        return {}
    if kind == "pooled_mlp":
        return {"hidden": 8} if small else {}
    return {"dropout": 0.1, "width": 16} if small else {"dropout": 0.1}


def _mean_square(outputs: Tensor) -> Tensor:
    return outputs.square().mean()


def measure(small: bool) -> list[Claim]:
    """Calls of sixteen over those of one; memory of those that read the tokens themselves, one by one."""
    claims = []
    for kind in HEADS:
        one, many = (launches(kind, n, small=small) for n in (1, N_HEADS))
        ratio = many / one
        claims.append(
            Claim(
                group=f"calls of a step, {N_HEADS} equal readouts over one",
                what=kind,
                ratio=ratio,
                low=ratio,
                high=ratio,
                target=3.0,
                at_least=False,
                detail=f"{many} over {one}",
            )
        )
    for kind in (kind for kind, head in HEADS.items() if head.read is Readout.read):
        one_mb, many_mb = (memory_of(kind, n, small=small) for n in (1, N_HEADS))
        ratio = many_mb / one_mb
        claims.append(
            Claim(
                group=f"memory of a step, {N_HEADS} readouts over one", what=kind, ratio=ratio, low=ratio,
                high=ratio, target=1.2, at_least=False, detail=f"{many_mb:,.1f} MB over {one_mb:,.1f} MB",
            )
        )  # fmt: skip
    return claims
