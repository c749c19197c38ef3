"""Sixteen readouts in one pass over a batch, beside one and beside sixteen passes: whole training steps.

A step is measured against its own products and nothing else: each of them once more, on what it multiplied,
which includes weights that come from memory for 32 rows alone.

Widths, rates, dropouts and seeds are mixed. Each readout has its own optimiser, as runs of a sweep have.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from readouts.heads import AttentionReadout
from readouts.heads.base import Readout
from readouts.tokens.prepared import TokenPreparation
from readouts.training.optim import ReferenceAdamW, WarmupCosine
from readouts.training.step import backward, for_each
from tests.benchmarks.attention_step import CHANNELS, STEPS, draw_tokens
from tests.benchmarks.side_by_side import Claim, claim, in_turn

N_HEADS = 16
WIDTHS = (1024, 512, 256, 128)
DROPOUTS = (0.0, 0.1)
RATES = (1e-4, 3e-4)
CPU = torch.device("cpu")
DIM = 64
"""Of an attention head; a readout of width 1024 has 16 of them."""

PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.bmm.default, torch.ops.aten.addmm.default}

Trained = tuple[AttentionReadout, ReferenceAdamW]


def draw_runs(small: bool, device: torch.device = CPU) -> dict[str, Trained]:
    """Readouts and their optimisers by name; the first is the benchmark's own."""
    runs = {}
    for i in range(N_HEADS):
        width = WIDTHS[i % len(WIDTHS)] // (8 if small else 1)
        head = AttentionReadout(
            channels=CHANNELS,
            steps=2 * STEPS,
            n_outputs=4,
            width=width,
            heads=max(1, width // DIM),
            dropout=DROPOUTS[i // 4 % 2],
            generator=torch.Generator().manual_seed(i),
        ).to(device)
        schedule = WarmupCosine(peak=RATES[i // 8], steps=1000, warmup=10)
        runs[str(i)] = head, ReferenceAdamW(head.parameters(), schedule=schedule)
    return runs


def step(runs: Mapping[str, Trained], prepare: TokenPreparation, tokens: Tensor) -> dict[str, Tensor]:
    """One training step of all of them, in one pass; returns the losses."""
    heads: dict[str, Readout] = {name: head for name, (head, _) in runs.items()}
    for name, head in heads.items():
        head.draw_dropout_from(torch.Generator(tokens.device).manual_seed(int(name)))
    losses = backward(heads, prepare(tokens), {}, lambda name, outputs: outputs.square().mean())

    def update(trained: Trained) -> None:
        _, optimizer = trained
        optimizer.step()
        optimizer.zero_grad()

    for_each(update, runs.values(), tokens.device)
    return losses


class Products(TorchDispatchMode):
    """Records what was multiplied while it was on, to multiply it again and do nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[Callable[[], Tensor]] = []
        self.flops = 0
        """Two to a multiplication."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            left, right = args[-2:]
            self.flops += 2 * left.numel() * right.shape[-1]
            self._calls.append(partial(func, *(of.detach() for of in args)))
        return func(*args, **(kwargs or {}))

    def again(self, device: torch.device) -> None:
        """All of them, on a CPU dealt to its threads."""
        for_each(lambda call: call(), self._calls, device)


def products_of(work: Callable[[], object]) -> Products:
    """The products that `work` makes."""
    threads = torch.get_num_threads()
    # A mode sees its own thread's calls.
    torch.set_num_threads(1)
    try:
        with Products() as products:
            work()
    finally:
        torch.set_num_threads(threads)
    return products


def measure(small: bool) -> list[Claim]:
    """One pass for sixteen over one readout alone and over sixteen passes, and each over products alone."""
    tokens = draw_tokens(small)
    runs = draw_runs(small, tokens.device)
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear").to(tokens.device)
    first = {"0": runs["0"]}

    def apart() -> None:
        for name, run in runs.items():
            step({name: run}, prepare, tokens)

    steps: dict[str, Callable[[], object]] = {
        "together": lambda: step(runs, prepare, tokens),
        "one": lambda: step(first, prepare, tokens),
    }
    products = {name: products_of(work) for name, work in steps.items()}
    alone = {f"products, {name}": partial(of.again, tokens.device) for name, of in products.items()}
    times = in_turn({**steps, **alone, "apart": apart}, rounds=2 if small else 7)
    group = f"{N_HEADS} readouts, whole training step"
    return [
        *(
            claim(
                times, group=group, what=f"products alone over the step they are of: {name}",
                over=f"products, {name}", under=name, target=0.65 if name == "together" else None,
                detail=f"{of.flops / 1e9:,.1f} GFLOP a step",
            )
            for name, of in products.items()
        ),
        claim(
            times, group=group, what="one pass for all over one readout", over="together", under="one",
            detail="widths 1024 to 128, one is of width 1024",
        ),
        claim(times, group=group, what="a pass each over one pass for all", over="apart", under="together"),
    ]  # fmt: skip
