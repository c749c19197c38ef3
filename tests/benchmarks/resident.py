"""A training split in memory beside the same one read from its store, page cache warm."""

from collections.abc import Iterator

from featcache.system.device import choose_device
from readouts.features.batches import Batch
from readouts.features.preloaded import preload, preloaded_batches
from readouts.tasks.base import clip_rows
from tests.benchmarks.feed import feed_of
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, SMALL


def measure(small: bool) -> list[Claim]:
    """Batches with nothing done to them: what `--resident` saves at the most."""
    setting, device = SMALL if small else FULL, choose_device("auto")
    with feed_of(setting, 2 if small else 12) as feed:
        held = preload(feed.split, device, "yes", lambda what, done, total: None)
        assert held is not None

        def use_up(batches: Iterator[Batch]) -> None:
            for batch in batches:
                batch.tokens[0, 0, 0, 0].item()

        times = in_turn(
            {
                "read": lambda: use_up(feed.read(device)),
                "resident": lambda: use_up(
                    preloaded_batches(held, feed.split, clip_rows, feed.draws, feed.steps)
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
