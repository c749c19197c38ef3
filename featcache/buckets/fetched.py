"""Data and weights from a bucket: the files that are wanted, brought to a local folder before they are read.

Readers of videos and weights seek and map; so what they read is on a local disk. A file that is there with
the size and time of the object is not brought again, by whatever command. What was not used for a day makes
room.

    SCIVID_FETCHED      the folder; ~/.cache/scivid/fetched unless said otherwise
    SCIVID_FETCHED_GB   how much may be kept there; 500 unless said otherwise
"""

import logging
import os
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from featcache.buckets.client import Bucket, Listed
from featcache.buckets.copies import write_at
from featcache.buckets.path import BucketPath
from featcache.errors import CallError, DataError

FOLDER, GIGABYTES = "SCIVID_FETCHED", "SCIVID_FETCHED_GB"

DEFAULT_GIGABYTES = 500.0

FILES_AT_ONCE = 4

IN_USE = 24 * 3600.0
"""Seconds since a file was last wanted, in which it is not removed."""

LEAST_FREE = 1 << 30
"""Bytes of the disk that stay free for others."""


def fetched(there: BucketPath, wanted: Sequence[Listed]) -> Path:
    """The local folder that stands for a folder of a bucket, with the objects in it that are wanted.

    Args:
        there: the folder.
        wanted: objects below it.

    Raises:
        DataError: there is no room for them; says how much they need.
        CallError: the bound is no number.
        BucketError: they cannot be had.
    """
    digest = blake2b(str(there).encode(), digest_size=4).hexdigest()
    top, skip = _folder(), len(there.key) + bool(there.key)
    folder = top / f"{there.name or there.parts[1]}-{digest}"
    places = {folder / one.key[skip:]: one for one in wanted}
    missing = {path: one for path, one in places.items() if not _is_there(path, one)}
    if missing:
        n_bytes = sum(one.size or 0 for one in missing.values())
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_room(top, n_bytes, set(places), there)
        logging.getLogger(__name__).warning(
            f"{there}: {len(missing)} files, {n_bytes / 1e6:,.1f} MB, are brought to {folder}"
        )
        with ThreadPoolExecutor(FILES_AT_ONCE, "fetch") as pool:
            list(pool.map(lambda pair: _fetch(there.bucket, pair[1], pair[0]), missing.items()))
    now = time.time()
    for path, one in places.items():
        os.utime(path, (now, one.modified))
    return folder


def _folder() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "scivid" / "fetched"
    return Path(os.environ.get(FOLDER) or home).expanduser()


def _is_there(path: Path, one: Listed) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return (found.st_size, int(found.st_mtime)) == (one.size, int(one.modified))


def _fetch(bucket: Bucket, one: Listed, path: Path) -> None:
    """Bring one object; a kill leaves a file of another name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coming = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.partial")
    try:
        fd = os.open(coming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            size = bucket.whole(one.key, lambda at, piece: write_at(fd, at, piece))
        finally:
            os.close(fd)
        if size != one.size:
            raise DataError(
                f"{bucket.root}/{one.key} has {size:,} bytes instead of {one.size or 0:,}: it was written to "
                "meanwhile. Run the same command again."
            )
        coming.replace(path)
    finally:
        coming.unlink(missing_ok=True)


def _make_room(top: Path, needed: int, wanted: set[Path], there: BucketPath) -> None:
    """Remove what was not wanted for a while, as far as that is needed.

    Raises:
        DataError: it is not enough.
    """
    text = os.environ.get(GIGABYTES) or DEFAULT_GIGABYTES
    try:
        limit = int(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise CallError(f"{GIGABYTES}={text}: give a number of GB, as 500.") from None
    files = [(path, about) for path in top.rglob("*") if path.is_file() and (about := path.stat())]
    others = sorted((about.st_atime, about.st_size, path) for path, about in files if path not in wanted)
    disk = os.statvfs(top)
    on_disk = disk.f_bavail * disk.f_frsize - LEAST_FREE
    free = min(on_disk, limit - sum(about.st_size for _, about in files))
    for used, size, path in others:
        if free >= needed or time.time() - used < IN_USE:
            break
        with suppress(OSError):
            path.unlink()
            free += size
    if free < needed:
        raise DataError(
            f"{there}: {needed / 1e9:,.2f} GB are to be brought to {top}, where there is room for "
            f"{max(0, free) / 1e9:,.2f}: name another folder ({FOLDER}), raise {GIGABYTES}, or remove what "
            "is in it."
        )
