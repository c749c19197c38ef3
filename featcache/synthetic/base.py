"""What every generated data set offers, and the one source of its randomness.

A member writes the official release's own files with made-up content, so that everything downstream runs on
them unchanged and cannot tell. An item is a pure function of (data set, split, index, seed): items can be
made in any order and in parallel with the same bytes, and a larger set holds the items of a smaller one.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from featcache.errors import CallError
from featcache.system.ahead import map_ahead

Sizes = Mapping[str, int]
"""Split -> number of items."""

Progress = Callable[[int, int], None]
"""Called with (items done, items in all)."""


LOOK_AHEAD = 17
"""Items made before the first of them is written: keeps all workers busy, and memory small at any size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One file of a data set, written whole under a temporary name and then renamed."""

    path: str
    """Below the data folder, as the bucket names it."""
    split: str
    items: range
    """May be empty: the bucket holds empty shards too."""


@runtime_checkable
class Generator(Protocol):
    """One generated data set: its files, and how each is written."""

    @property
    def name(self) -> str:
        """The data set's name in `data_manifest.yaml`."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever the same seed gives other bytes: older folders are then written anew."""
        ...

    @property
    def profiles(self) -> Mapping[str, Sizes]:
        """Named sizes; every member has `demo` (seconds) and `tiny` (for tests)."""
        ...

    def parts(self, sizes: Sizes) -> tuple[Part, ...]:
        """All files of a data set of these sizes."""
        ...

    def write(self, part: Part, path: Path, *, seed: int, pool: Executor, tick: Callable[[], None]) -> None:
        """Write `part` to `path` with the help of `pool`; call `tick` after each item."""
        ...


def stream(*key: str | int) -> np.random.Generator:
    """The random numbers that belong to `key`, and to no other key."""
    digest = blake2b("/".join(map(str, key)).encode(), digest_size=16).digest()
    entropy = np.random.SeedSequence(int.from_bytes(digest, "little"))
    return np.random.Generator(np.random.Philox(entropy))


_Item = TypeVar("_Item")


def in_order(
    pool: Executor, make: Callable[[int], _Item], items: range, tick: Callable[[], None]
) -> Iterator[_Item]:
    """`make` of each item, computed by `pool` a little ahead of what was taken, in the order of `items`."""
    for _, made in map_ahead(pool, make, items, window=LOOK_AHEAD):
        yield made.result()
        tick()


def split_evenly(n_items: int, n_parts: int) -> tuple[range, ...]:
    """Consecutive ranges over 0..n_items-1 whose lengths differ by at most one."""
    bounds = [n_items * part // n_parts for part in range(n_parts + 1)]
    return tuple(range(first, last) for first, last in pairwise(bounds))


def sizes_of(generator: Generator, profile: str | Sizes) -> dict[str, int]:
    """The sizes that `profile` names, or the given sizes after a check.

    Raises:
        CallError: no such profile or split, or a size below zero.
    """
    if isinstance(profile, str):
        if profile not in generator.profiles:
            known = ", ".join(generator.profiles)
            raise CallError(f"{generator.name} has no size called {profile!r}: choose one of {known}.")
        return dict(generator.profiles[profile])
    splits = generator.profiles["demo"]
    for split, n_items in profile.items():
        if split not in splits or n_items < 0:
            raise CallError(
                f"{generator.name}: {n_items} items of {split!r} cannot be generated: "
                f"give 0 or more items of {', '.join(splits)}."
            )
    return {split: profile.get(split, 0) for split in splits}
