"""The batches of a store, read again each time or held in memory: what measurements of training compare."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from readouts.features.batches import Batch, training_batches
from readouts.features.draws import Draws
from readouts.features.splits import FeatureSplit, draws_of, split_of
from readouts.tasks.base import clip_rows
from readouts.tokens.prepared import Native, QuantizedTokens, ScatteredTokens
from tests.benchmarks.stores import Setting, write_store

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """So many steps of training on a store."""

    split: FeatureSplit
    draws: Draws
    steps: range

    def read(self, device: torch.device = CPU) -> Iterator[Batch]:
        return training_batches(self.split, clip_rows, self.draws, self.steps, device)

    def held(self, device: torch.device = CPU) -> list[Batch]:
        """The same batches, in memory of their own: a reader uses its own again."""
        return [Batch(clips=b.clips, tokens=copied(b.tokens), targets=b.targets) for b in self.read(device)]


def copied(tokens: Native) -> torch.Tensor:
    """Float tokens in memory of their own."""
    assert not isinstance(tokens, QuantizedTokens)
    return tokens.together() if isinstance(tokens, ScatteredTokens) else tokens.clone()


@contextmanager
def feed_of(setting: Setting, n_steps: int) -> Iterator[Feed]:
    """From a store that is there as long as the context."""
    with TemporaryDirectory() as folder:
        split = split_of(write_store(Path(folder), setting))
        draws = draws_of(split, batch=setting.batch, seed=0)
        yield Feed(split=split, draws=draws, steps=range(n_steps))
