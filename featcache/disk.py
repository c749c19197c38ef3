"""Whether a disk has room for what is about to be written, said before the first byte."""

import shutil
from pathlib import Path

from featcache.errors import ScividError, StoreError


def require_room(
    path: Path, needed: int, *, what: str, way_out: str, error: type[ScividError] = StoreError
) -> None:
    """Refuse to begin what the disk of `path` cannot hold; `path` itself need not be there yet.

    Args:
        path: where the bytes go.
        needed: how many are still to come.
        what: of what they are, as the message's subject.
        way_out: what the user can do, beside making room.
        error: class of the error.

    Raises:
        ScividError: of class `error`; names what is needed and what is free.
    """
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise error(
            f"{what} needs {size(needed)} more and the disk of {path} has {size(free)} free: make room, "
            f"or {way_out}"
        )


def size(n_bytes: int) -> str:
    """Bytes as people read them, by powers of ten."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= one:
            return f"{n_bytes / one:,.2f} {unit}"
    return f"{n_bytes:,.0f} bytes"
