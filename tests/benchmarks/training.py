"""Training from the store beside the same loop on tensors that are in memory already.

One step reads, moves, goes forward and backward, and updates: a cross-attention head of the benchmark's size
on batches of 32 random clips. The rival's batches lie in memory as float16, labels too: in that of the GPU
where there is one, and then bringing the bytes there is measured beside.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from featcache.system.device import choose_device
from readouts.features.batches import Batch
from readouts.heads import AttentionReadout
from readouts.tokens.prepared import TokenPreparation
from readouts.training.optim import ReferenceAdamW
from readouts.training.step import backward, for_each
from tests.benchmarks.feed import CPU, feed_of
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, N_CLASSES, SMALL


class Loop:
    """A head in training, fed by whoever asks."""

    def __init__(
        self, channels: int, steps: int, *, width: int, heads: int, device: torch.device = CPU
    ) -> None:
        self.prepare = TokenPreparation(steps_in=steps, steps_out=2 * steps, method="linear").to(device)
        self.head = AttentionReadout(
            channels=channels, steps=2 * steps, n_outputs=N_CLASSES, width=width, heads=heads, dropout=0.5
        ).to(device)
        self.optimizer = ReferenceAdamW(self.head.parameters(), schedule=lambda update: 1e-4)

    def run(self, batches: Iterator[Batch]) -> None:
        for batch in batches:
            backward(
                {"attention": self.head},
                self.prepare(batch.tokens),
                {},
                lambda _, outputs, batch=batch: bce(outputs, batch.targets["labels"].float()),
            )
            for_each(ReferenceAdamW.step, [self.optimizer], batch.tokens.device)
            self.optimizer.zero_grad()


def measure(small: bool) -> list[Claim]:
    """The ratio of the two loops, a dozen steps a round."""
    setting, device = SMALL if small else FULL, choose_device("auto")
    n_steps, width, heads = (2, 32, 2) if small else (12, 1024, 16)
    with feed_of(setting, n_steps) as feed:
        held = feed.held(device)
        loop = Loop(setting.grid.channels, setting.grid.steps, width=width, heads=heads, device=device)
        rivals: dict[str, Callable[[], object]] = {
            "from the store": lambda: loop.run(feed.read(device)),
            "from memory": lambda: loop.run(iter(held)),
        }
        if device.type == "cuda":
            rivals["bytes to the GPU"] = _copies(held)
        times = in_turn(rivals, rounds=1 if small else 9)
    detail = f"{n_steps} steps of {setting.batch} clips"
    claims = [
        claim(
            times, group="training", what="speed from the store over speed from memory",
            over="from memory", under="from the store", target=0.96, detail=detail,
        ),
        claim(
            times.cpu, group="training", what="the same, of the processor's seconds",
            over="from memory", under="from the store", target=0.96, detail=detail,
        ),
    ]  # fmt: skip
    if device.type == "cuda":
        claims += [
            claim(
                times, group="training", what=f"{loop_of}, over copying its bytes from pinned memory",
                over=loop_of, under="bytes to the GPU",
            )
            for loop_of in ("from the store", "from memory")
        ]  # fmt: skip
    return claims


def _copies(held: Sequence[Batch]) -> Callable[[], object]:
    """Bring as many bytes to the GPU as the batches have, from one pinned buffer to one of its own."""
    tokens = held[0].tokens
    assert isinstance(tokens, torch.Tensor)
    here, there = tokens.cpu().pin_memory(), torch.empty_like(tokens)
    return lambda: [there.copy_(here, non_blocking=True) for _ in held]
