"""Is a group of targets what it claims to be: its metadata, every chunk, finite numbers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from featcache.errors import StoreError
from featcache.store.targets import MOST_ROOT_BYTES, Targets, open_targets
from featcache.store.validation.report import Progress, Report
from featcache.system.json_files import read_json


def validate_targets(path: Path, progress: Progress | None = None) -> Report:
    """Check everything about the group at `path`; raises nothing about its content.

    Args:
        path: of the group.
        progress: called after each array.
    """
    try:
        targets = open_targets(path)
    except StoreError as problem:
        return Report(path=path, problems=(str(problem),))
    problems = []
    for done, name in enumerate(sorted(targets.metadata), start=1):
        try:
            problems += [*_metadata_problems(targets, name), *array_problems(targets, name)]
        except StoreError as problem:
            problems.append(str(problem))
        if progress is not None:
            progress(done, len(targets.metadata))
    notes = [] if targets.sums is not None else [_UNSEALED.format(path)]
    sizes = [file.stat().st_size for name in targets.metadata for file in (path / name).glob("c.*")]
    return Report(
        path=path,
        problems=tuple(problems),
        notes=tuple(notes),
        n_chunks=len(sizes),
        n_bytes=sum(sizes),
    )


def array_problems(targets: Targets, name: str) -> Iterator[str]:
    """What is wrong with one array, of which every block is read, and with it every checksum.

    Raises:
        StoreError: a chunk is missing or damaged.
    """
    first_axis = targets.metadata[name]["dimension_names"][0]
    row = 0
    for block in targets.blocks(name):
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            wrong = row + int(np.argwhere(~np.isfinite(block))[0][0])
            yield f"targets {name!r} hold a value that is not finite, at {first_axis} {wrong}."
            return
        row += len(block)


_UNSEALED = (
    "{0} is of before there were seals: chunks of other targets would not be noticed. "
    "`scivid validate --seal {0}` adds them."
)


def _metadata_problems(targets: Targets, name: str) -> Iterator[str]:
    path = targets.path / name / "zarr.json"
    try:
        found = read_json(path, limit=MOST_ROOT_BYTES)
    except (OSError, ValueError) as problem:
        yield f"{path} cannot be read: {problem}. Other Zarr clients need it."
        return
    if found != targets.metadata[name]:
        yield f"{path} was edited: it does not describe these targets."
