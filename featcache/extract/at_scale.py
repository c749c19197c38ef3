"""What many workers, a bucket and a slow line make of a plan: arithmetic on numbers that are given.

Workers take whole shards, so the one with most of them ends last. In an object store every shard is an object
that is put once, and a clip that is drawn is a ranged request for each of its chunks.
"""

from dataclasses import dataclass
from math import ceil

from featcache.errors import CallError
from featcache.extract.plan import Plan, SplitPlan, hours_as_text
from featcache.store.reading.shard_file import MOST_TAILS
from featcache.system.files import size


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Who extracts, and where the cache lies."""

    workers: int = 1
    """Devices that extract side by side."""
    bucket: bool = False
    """Whether the cache is in an object store."""
    read_mb_s: float | None = None
    """10^6 bytes a second that one process reads of the cache, measured; None says nothing of it."""

    def __post_init__(self) -> None:
        if self.workers < 1 or (self.read_mb_s is not None and self.read_mb_s <= 0):
            raise CallError(f"{self.workers} workers that read {self.read_mb_s} MB/s: both must be above 0.")


def remarks(plan: Plan, site: Site) -> list[str]:
    """What to know beside `Plan.sentences`, a line each; nothing of one worker beside its own disk."""
    counted = [split for split in plan.splits if split.n_clips is not None]
    return [
        *(_of_workers(plan, counted, site.workers) if site.workers > 1 and counted else ()),
        *(_of_bucket(plan, counted) if site.bucket and counted else ()),
        *(() if site.read_mb_s is None else _of_reading(plan, site.read_mb_s)),
    ]


def last_passes(split: SplitPlan, workers: int) -> int:
    """Clips that the worker with most shards of a split gives the model."""
    assert split.passes is not None
    assert split.n_shards is not None
    return min(split.passes, ceil(split.n_shards / workers) * split.shard_passes)


def epoch_requests(plan: Plan, split: SplitPlan, draws: int | None = None) -> int:
    """Ranged requests that reading takes: of all clips once, or of so many draws in a random order.

    One for each chunk of tokens (and of scales), and one for the end of each shard that is opened. Of more
    shards than `MOST_TAILS` the next clip's is forgotten mostly, and asked for again.
    """
    assert split.n_clips is not None
    assert split.n_shards is not None
    draws = split.n_clips if draws is None else draws
    tails = min(draws, split.n_shards) if split.n_shards <= MOST_TAILS else draws
    return plan.arrays_a_layer * (draws * split.chunks_a_clip + tails)


def _of_workers(plan: Plan, splits: list[SplitPlan], workers: int) -> list[str]:
    most = max(splits, key=lambda split: split.n_shards or 0)
    assert most.n_shards is not None
    share = f"{ceil(most.n_shards / workers):,} of {most.n_shards:,} shards of {most.role}"
    if plan.seconds_a_clip is None:
        return [f"{workers:,} workers: one has at most {share}."]
    last = sum(last_passes(split, workers) for split in splits) * plan.seconds_a_clip / 3600
    alike = sum(split.passes or 0 for split in splits) * plan.seconds_a_clip / 3600 / workers
    a_shard = max(split.shard_passes for split in splits) * plan.seconds_a_clip
    lines = [
        (
            f"{workers:,} workers: {hours_as_text(last)} hours until the last ends, who has {share}; "
            f"{hours_as_text(alike)} if all had as much. A shard takes {a_shard:,.3g} seconds: so much "
            "is lost with a worker."
        )
    ]
    if most.n_shards < workers:
        lines.append(
            f"only {most.n_shards:,} workers have something to do: ask for fewer, or for smaller shards "
            "(--shard-mb)."
        )
    return lines


def _of_bucket(plan: Plan, splits: list[SplitPlan]) -> list[str]:
    shards, others = sum(split.n_files or 0 for split in splits), sum(split.n_others or 0 for split in splits)
    lines = [
        (
            f"in a bucket: {shards + others:,} objects, a PUT each ({shards:,} shards, {others:,} of clips, "
            "targets and metadata)."
        )
    ]
    train = next((split for split in splits if split.role == "train"), None)
    if train is None or train.n_clips is None:
        return lines
    draws, a_clip = plan.training.draws, plan.clip_bytes
    once = min(draws, train.n_clips * train.n_views) * a_clip
    epoch = (
        f"{epoch_requests(plan, train):,} ranged GETs and {size(train.n_clips * a_clip)} out of the bucket"
    )
    readout = f"{epoch_requests(plan, train, draws):,} and {size(draws * a_clip)}"
    return [
        *lines,
        (
            f"an epoch of train takes {epoch}, a readout of {draws:,} draws {readout}; with a local copy of "
            f"what was read {size(once)} at the most, once for all readouts."
        ),
    ]


def _of_reading(plan: Plan, mb_s: float) -> list[str]:
    training = plan.training
    reading, own = plan.clip_bytes * training.batch / (mb_s * 1e6), 1 / training.steps_per_second
    what = f"at {mb_s:,g} MB/s a step's clips take {1e3 * reading:,.1f} ms to read"
    if reading <= own:
        return [f"{what}, while the step before takes {1e3 * own:,.1f}: reading keeps up."]
    hours = hours_as_text(training.steps * reading / 3600)
    return [
        (
            f"{what}, the step itself {1e3 * own:,.1f}: {training.steps:,} steps take {hours} hours, "
            f"{reading / own:.1f} times as long; a local copy, or --store-dtype int8, makes them shorter."
        )
    ]
