"""Sixteen readouts in one pass over a batch, beside one and beside sixteen passes: whole training steps.

Speeds are given of what a step multiplies, over the speed of products of that shape and nothing else.

Widths, rates, dropouts and seeds are mixed. Each readout has its own optimiser, as runs of a sweep have.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from featcache.system.threads import parallel_map
from readouts.heads import AttentionReadout
from readouts.heads.base import Readout
from readouts.tokens.prepared import TokenPreparation
from readouts.training.optim import ReferenceAdamW, WarmupCosine
from readouts.training.step import backward, for_each
from tests.benchmarks.attention_step import CHANNELS, STEPS, draw_tokens
from tests.benchmarks.side_by_side import Claim, Times, claim, in_turn

N_HEADS = 16
WIDTHS = (1024, 512, 256, 128)
DROPOUTS = (0.0, 0.1)
RATES = (1e-4, 3e-4)
CPU = torch.device("cpu")
DIM = 64
"""Of an attention head; a readout of width 1024 has 16 of them."""

PRODUCTS_A_CLIP = 4
"""As a step makes of that shape: forward and backward, scores and sums."""

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


def flops_of(work: Callable[[], object]) -> int:
    """Of all products that `work` makes, two to a multiplication."""
    threads = torch.get_num_threads()
    # A counter sees its own thread's calls.
    torch.set_num_threads(1)
    try:
        with FlopCounterMode(display=False) as counter:
            work()
    finally:
        torch.set_num_threads(threads)
    return counter.get_total_flops()


def products_alone(tokens: Tensor, n_keys: int) -> None:
    """Products as a step's largest are, of one clip with the keys of all heads, each clip on one thread."""
    n_clips, n_steps, n_tokens, n_channels = tokens.shape
    tiles = [torch.ones(1, n_tokens * n_steps, n_channels) for _ in range(torch.get_num_threads())]
    keys = torch.ones(1, n_keys, n_channels)
    if tokens.is_cuda:
        clips = torch.ones(n_clips, n_tokens * n_steps, n_channels, device=tokens.device)
        keys = keys.to(tokens.device).expand(n_clips, -1, -1)
        for _ in range(PRODUCTS_A_CLIP):
            torch.bmm(keys, clips.mT)
        return

    def of_clip(number: int) -> None:
        tile = tiles[number % len(tiles)]
        for _ in range(PRODUCTS_A_CLIP):
            torch.bmm(keys, tile.mT)

    parallel_map(of_clip, range(n_clips))


def measure(small: bool) -> list[Claim]:
    """One pass for sixteen over one readout alone and over sixteen passes, and each over products alone."""
    tokens = draw_tokens(small)
    runs = draw_runs(small, tokens.device)
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear").to(tokens.device)
    first = {"0": runs["0"]}
    n_keys = sum(head.trunk.attention.heads for head, _ in runs.values())

    def apart() -> None:
        for name, run in runs.items():
            step({name: run}, prepare, tokens)

    rivals: dict[str, Callable[[], object]] = {
        "together": lambda: step(runs, prepare, tokens),
        "one": lambda: step(first, prepare, tokens),
        "products": lambda: products_alone(tokens, n_keys),
    }
    flops = {name: flops_of(work) for name, work in rivals.items()}
    times = in_turn({**rivals, "apart": apart}, rounds=2 if small else 7)
    group = f"{N_HEADS} readouts, whole training step"
    return [
        _of_the_peak(times, flops, "together", group, 0.65),
        _of_the_peak(times, flops, "one", group, None),
        claim(
            times, group=group, what="one pass for all over one readout", over="together", under="one",
            detail="widths 1024 to 128, one is of width 1024",
        ),
        claim(times, group=group, what="a pass each over one pass for all", over="apart", under="together"),
    ]  # fmt: skip


def _of_the_peak(
    times: Times, flops: Mapping[str, int], name: str, group: str, target: float | None
) -> Claim:
    """The speed of a step's products, all else it does included, over that of products alone."""
    speeds = {rival: flops[rival] / 1e9 / np.asarray(times[rival]) for rival in (name, "products")}
    low, middle, high = np.quantile(speeds[name] / speeds["products"], [0.25, 0.5, 0.75])
    shown = ", ".join(f"{rival} {np.median(speed):,.0f} GFLOP/s" for rival, speed in speeds.items())
    return Claim(
        group=group,
        what=f"speed of {'all' if name == 'together' else name} over that of products alone",
        ratio=float(middle),
        low=float(low),
        high=float(high),
        target=target,
        detail=f"{shown}; {flops[name] / 1e9:,.1f} GFLOP a step",
    )
