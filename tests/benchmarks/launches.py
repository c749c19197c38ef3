"""What a training step of sixteen equal readouts asks of a device, beside that of one: calls, and memory.

Calls are counted on torch's meta device, where heads go as they go on a GPU: kernels that torch dispatches,
of which what only makes a view launches none and one of a list of tensors counts as one. Readouts that read
the tokens themselves are not stacked (`readouts.training.stack`): each is much arithmetic, and what their
backward passes need is more than all else. So of those memory is measured: what a process allocates at its
peak beyond weights and gradients.
"""

import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from readouts.heads import HEADS, Readout, build_head
from readouts.tokens.implicit import TemporalResize
from readouts.tokens.prepared import TokenPreparation
from readouts.training.optim import ReferenceAdamW, step_together
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


def launches(kind: str, n_heads: int, *, small: bool) -> int:
    """Calls of a whole step of so many equal heads, each with a rate of its own."""
    channels, side, n_clips = (8, 2, 2) if small else (768, 14, 32)
    heads = {
        str(i): build_head(
            kind, channels=channels, steps=16, n_outputs=4, rows=side, columns=side, **_settings(kind, small)
        ).to(META)
        for i in range(n_heads)
    }
    optimizers = [
        ReferenceAdamW(head.parameters(), schedule=lambda update, i=i: 1e-3 * (i + 1))
        for i, head in enumerate(heads.values())
    ]
    units = in_stacks(heads, dict.fromkeys(heads, ""), META)
    prepare = TokenPreparation(steps_in=8, steps_out=16, method="linear")
    on_cpu = TemporalResize.by(prepare.matrix)
    prepare = prepare.to(META)
    prepare._resize = TemporalResize(matrix=prepare.matrix, lags=tuple(lag.to(META) for lag in on_cpu.lags))
    tokens = torch.empty(n_clips, 8, side**2, channels, dtype=torch.float16, device=META)
    inputs = {"queries": torch.empty(n_clips, 3, 2, device=META)} if HEADS[kind].gives == "tracks" else {}
    calls = Calls()
    for watched in (False, True):
        with calls if watched else Calls():
            backward(units, prepare(tokens), inputs, partial(losses_of, _mean_square))
            for unit in units.values():
                if isinstance(unit, Stack):
                    unit.hand_out_gradients()
            step_together(optimizers)
            for optimizer in optimizers:
                optimizer.zero_grad()
    return calls.n


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


def memory_of(n_heads: int, *, small: bool) -> float:
    """MB that a process of its own allocates at its peak for a step of so many dpt heads."""
    command = [sys.executable, "-m", "tests.benchmarks.launches", str(n_heads), str(int(small))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _measure_memory(n_heads: int, *, small: bool) -> float:
    side, features, n_clips = (4, 16, 8) if small else (8, 48, 8)
    heads: dict[int, Readout] = {
        i: build_head(
            "dpt", channels=64, steps=2, n_outputs=0, rows=side, columns=side, features=features,
            head_channels=features,
        )
        for i in range(n_heads)
    }  # fmt: skip
    prepare = TokenPreparation(steps_in=2, steps_out=2, method=None)
    tokens = torch.randn(n_clips, 2, side**2, 64).half()
    # Imports of a first pass, and what libraries keep, are not what is asked for.
    backward({0: heads[0]}, prepare(tokens[:1]), {}, lambda _, outputs: outputs.square().mean())
    heads[0].zero_grad()
    before = _megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    backward(heads, prepare(tokens), {}, lambda _, outputs: outputs.square().mean())
    gradients = sum(4 * p.numel() for head in heads.values() for p in head.parameters()) / 1e6
    return _megabytes("VmHWM") - before - gradients


def _megabytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def measure(small: bool) -> list[Claim]:
    """Calls of sixteen over those of one, of each kind; memory of sixteen dpt heads over that of one."""
    claims = []
    for kind, head in HEADS.items():
        one, many = (launches(kind, n, small=small) for n in (1, N_HEADS))
        stacks = head.read is not Readout.read
        ratio = many / one
        claims.append(
            Claim(
                group=f"calls of a step, {N_HEADS} equal readouts over one",
                what=kind,
                ratio=ratio,
                low=ratio,
                high=ratio,
                target=3.0 if stacks else None,
                at_least=False,
                detail=f"{many} over {one}",
            )
        )
    one_mb, many_mb = (memory_of(n, small=small) for n in (1, N_HEADS))
    ratio = many_mb / one_mb
    claims.append(
        Claim(
            group=f"memory of a step, {N_HEADS} readouts over one", what="dpt", ratio=ratio, low=ratio,
            high=ratio, target=1.2, at_least=False, detail=f"{many_mb:,.0f} MB over {one_mb:,.0f} MB",
        )
    )  # fmt: skip
    return claims


if __name__ == "__main__":
    sys.stdout.write(str(_measure_memory(int(sys.argv[1]), small=sys.argv[2] == "1")))
