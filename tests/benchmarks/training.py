"""Training from the store beside the same loop on tensors that are in memory already.

One step reads, moves, goes forward and backward, and updates: a cross-attention head of the benchmark's size
on batches of 32 random clips. The rival's batches lie in memory as float16, labels too.
"""

from collections.abc import Iterator

from torch.nn.functional import binary_cross_entropy_with_logits as bce

from readouts.features import Batch
from readouts.heads import AttentionReadout
from readouts.optim import ReferenceAdamW
from readouts.step import descend, on_threads
from readouts.tokens import TokenPreparation
from tests.benchmarks.feed import feed_of
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, N_CLASSES, SMALL


class Loop:
    """A head in training, fed by whoever asks."""

    def __init__(self, channels: int, steps: int, *, width: int, heads: int) -> None:
        self.prepare = TokenPreparation(steps_in=steps, steps_out=2 * steps, method="linear")
        self.head = AttentionReadout(
            channels=channels, steps=2 * steps, n_outputs=N_CLASSES, width=width, heads=heads, dropout=0.5
        )
        self.optimizer = ReferenceAdamW(self.head.parameters(), schedule=lambda update: 1e-4)

    def run(self, batches: Iterator[Batch]) -> None:
        for batch in batches:
            descend(
                {"attention": self.head},
                self.prepare(batch.tokens),
                {},
                lambda _, outputs, batch=batch: bce(outputs, batch.targets["labels"].float()),
            )
            on_threads(ReferenceAdamW.step, [self.optimizer], batch.tokens.device)
            self.optimizer.zero_grad()


def measure(small: bool) -> list[Claim]:
    """The ratio of the two loops, a dozen steps a round."""
    setting = SMALL if small else FULL
    n_steps, width, heads = (2, 32, 2) if small else (12, 1024, 16)
    with feed_of(setting, n_steps) as feed:
        held = feed.held()
        loop = Loop(setting.grid.channels, setting.grid.steps, width=width, heads=heads)
        times = in_turn(
            {
                "from the store": lambda: loop.run(feed.read()),
                "from memory": lambda: loop.run(iter(held)),
            },
            rounds=1 if small else 9,
        )
    return [
        claim(
            times,
            group="training",
            what="speed from the store over speed from memory",
            over="from memory",
            under="from the store",
            target=0.9,
            detail=f"{n_steps} steps of {setting.batch} clips",
        )
    ]
