"""The kinds of files that scivid writes or reads: where each lies in the world, and what reads it.

A kind's reader is the use that the file has in the package, down to the numbers; what it returns is compared
with what the undamaged world gives.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.mutations import Damaged
from tests.faults.world import World

Read = Callable[[World, Path], Mapping[str, Any]]
"""Given a copy of the world and the path of the file that was damaged there, what is read."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of file, with one use of it."""

    name: str
    files: tuple[str, ...]
    """Patterns below the world's root of what is damaged."""
    read: Read
    folders: tuple[str, ...]
    """Folders of the world that the reader needs, or that hold peers."""
    peers: tuple[str, ...] = ()
    """Patterns of more files of the same kind, that are not damaged but may be put in the place of one."""
    allowed: Mapping[str, str] = field(default_factory=dict)
    """Mutation ("bytes": all that change bytes within the file; "*": all) -> why other numbers in silence are
    as they should be."""
    without: tuple[str, ...] = ()
    """Mutations that are no damage here: a film of 8 GiB is a film, and takes its time."""
    weight: int = 1
    """Its share of the trials."""

    def damageable(self, world: World) -> list[Path]:
        """The files that may be damaged, below the root."""
        return sorted(
            {path.relative_to(world.root) for pattern in self.files for path in world.root.glob(pattern)}
        )

    def damaged(self, world: World, path: Path) -> Damaged:
        """One of them in a copy of the world, with its peers there."""
        peers = {one for pattern in (*self.files, *self.peers) for one in world.root.glob(pattern)}
        mine = world.root / path
        suffix = mine.suffix
        alike = sorted(one for one in peers if one != mine and one.is_file() and one.suffix == suffix)
        strangers = sorted(
            one for one in mine.parent.iterdir() if one.is_file() and one != mine and one not in peers
        )
        return Damaged(path=mine, peers=alike, strangers=strangers)


def all_kinds() -> dict[str, Kind]:
    """Every kind, by its name."""
    from tests.faults.kinds import data_files, result_files, store_files, weight_files

    modules = (store_files, result_files, weight_files, data_files)
    return {kind.name: kind for module in modules for kind in module.KINDS}
