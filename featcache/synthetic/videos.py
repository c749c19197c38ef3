"""A set of videos whose records one function makes: its shards, some of them empty, and their writing.

It knows the names of the files and nothing of what the records show; that is the member's `make`.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from featcache.manifest import Dataset, Split, load_manifest
from featcache.synthetic.base import Part, Sizes, in_order, split_evenly
from featcache.synthetic.records import write_records


@runtime_checkable
class MakeRecord(Protocol):
    """Makes one serialised SequenceExample, from nothing but its arguments."""

    def __call__(self, split: str, index: int, *, seed: int, dataset: Dataset) -> bytes:
        """The record number `index` of `split`, under the manifest's keys."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoSet:
    """Record videos, each a function of its own number, in the layout of the official release."""

    name: str
    version: int
    make: MakeRecord
    profiles: Mapping[str, Sizes]
    n_shards: Mapping[str, int]
    empty_shard: Mapping[str, int]
    """Split -> the shard that is left empty: the bucket may hold such shards, and readers must bear them."""

    def parts(self, sizes: Sizes) -> tuple[Part, ...]:
        """The shards of every split, named as in the manifest."""
        dataset = load_manifest().dataset(self.name)
        return tuple(part for split in sizes for part in self._shards(dataset.split(split), sizes[split]))

    def write(self, part: Part, path: Path, *, seed: int, pool: Executor, tick: Callable[[], None]) -> None:
        """Write one shard, its records made by `pool`."""
        dataset = load_manifest().dataset(self.name)
        make = partial(self.make, part.split, seed=seed, dataset=dataset)
        write_records(path, in_order(pool, make, part.items, tick))

    def _shards(self, split: Split, n_items: int) -> list[Part]:
        n_shards, empty = self.n_shards[split.name], self.empty_shard.get(split.name)
        filled = iter(split_evenly(n_items, n_shards - (empty is not None)))
        return [
            Part(
                path=split.files.format(shard=shard, n_shards=n_shards),
                split=split.name,
                items=range(0) if shard == empty else next(filled),
            )
            for shard in range(n_shards)
        ]
