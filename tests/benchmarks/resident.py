"""A training split in memory beside the same one read from its store, page cache warm."""

from collections.abc import Iterator

from featcache.system.console import silent
from featcache.system.device import choose_device
from readouts.features.batches import Batch, training_batches
from readouts.features.preloading import Preloads
from readouts.tasks.base import clip_rows
from tests.benchmarks.feed import copied, feed_of
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, SMALL


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
        claim(
            times,
            group="resident",
            what=f"reading over drawing from memory, batches alone, {device.type}",
            over="read",
            under="resident",
            detail=f"{len(feed.steps)} batches of {setting.batch}",
        )
    ]
