"""A training split in memory beside the same one read from its store, page cache warm."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from featcache.store.reading.layer_reader import LayerReader
from featcache.system.console import silent
from featcache.system.device import choose_device
from readouts.features.batches import Batch, evaluation_batches, training_batches
from readouts.features.preloading import Preloads
from readouts.tasks.base import clip_rows
from tests.benchmarks.feed import CPU, copied, feed_of
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, SMALL, Setting


def measure(small: bool) -> list[Claim]:
    """Batches that are copied once, as heads cast them: what `--resident` saves at the most."""
    setting, device = SMALL if small else FULL, choose_device("auto")
    with feed_of(setting, 2 if small else 12) as feed:
        preloads = Preloads(device, "yes")
        held = preloads.for_pass(feed.split, feed.split, minival_clips=1, progress=silent)["train"]

        def use_up(batches: Iterator[Batch]) -> None:
            for batch in batches:
                copied(batch.tokens)

        times = in_turn(
            {
                "read": lambda: use_up(feed.read(device)),
                "resident": lambda: use_up(
                    training_batches(feed.split, clip_rows, feed.draws, feed.steps, device, held)
                ),
            },
            rounds=2 if small else 15,
        )
    return [
        _chunks_read(setting),
        claim(
            times,
            group="resident",
            what=f"reading over drawing from memory, batches alone, {device.type}",
            over="read",
            under="resident",
            detail=f"{len(feed.steps)} batches of {setting.batch}",
        ),
    ]


def _chunks_read(setting: Setting) -> Claim:
    """Chunks that two passes of three epochs, each scored three times, take from files: every one once."""
    n_read, plan = 0, LayerReader._plan

    def counted(self: LayerReader, chunks: np.ndarray, **options: Any) -> object:
        nonlocal n_read
        n_read += len(chunks)
        return plan(self, chunks, **options)

    n_minival = setting.n_clips // 4
    with (
        feed_of(setting, 3 * setting.n_clips // setting.batch) as feed,
        patch.object(LayerReader, "_plan", counted),
    ):
        # As large as it is, val is a split of its own to whoever holds it.
        val = replace(feed.split, fraction=0.5)
        preloads = Preloads(CPU, "yes")
        for _ in range(2):
            held = preloads.for_pass(feed.split, val, minival_clips=n_minival, progress=silent)
            for _ in training_batches(feed.split, clip_rows, feed.draws, feed.steps, CPU, held["train"]):
                pass
            for _ in range(3):
                for _ in evaluation_batches(val, clip_rows, setting.batch, CPU, n_minival, held["val"]):
                    pass
        ratio = n_read / (len(feed.split.usable) + len(val.usable))
    return Claim(
        group="resident", what="chunks read / chunks of training and val, two passes of three epochs",
        ratio=ratio, low=ratio, high=ratio, target=1.0, at_least=False, detail="preloaded, counted",
    )  # fmt: skip
