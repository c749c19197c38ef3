"""The clip index of a split, kept so that a split is read and hashed once, not once a backbone.

Listing the clips of a split means reading all of it, tens of GB for the largest. What a scan found is kept
below the cache folder, beside what it was made from: the manifest's entry, the code that reads, and size,
inode and times of every file. Where one of these differs, or the kept file does not have the digest that it
carries, it is read again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path

import pyarrow as pa

from featcache.clips import CLIP_SCHEMA, ClipIndex
from featcache.data.readers.base import FilesReader, Progress, Reader, Scan, SkippedClip
from featcache.errors import DataError
from featcache.fingerprint import SHORT, fingerprint
from featcache.manifest import Dataset
from featcache.system.files import keep, remove_leftovers, unless_kept
from featcache.system.row_groups import row_groups, write_grouped
from featcache.system.sealed import parquet_sealed, read_parquet
from featcache.system.versions import version_of

FOLDER = "index"
"""Below the cache folder; the stores are two levels further down."""

WHAT = "the clip index"

ABOUT = b"scivid"
"""Key of what is kept beside the table."""


def scan_once(
    reader: Reader,
    dataset: Dataset,
    split: str,
    *,
    data_dir: Path,
    cache_dir: Path,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Scan:
    """What `reader.scan` gives, from the cache where nothing has changed since it was kept there.

    A scan that skipped records, or took parts of files, is kept so, and used only where that is allowed.

    Raises:
        DataError: as `reader.scan`.
    """
    if not isinstance(reader, FilesReader):
        return reader.scan(skip_bad=skip_bad, progress=progress)
    folder = str(data_dir.absolute())
    path = cache_dir / FOLDER / f"{dataset.name}-{split}-{fingerprint({'data': folder})[:SHORT]}.parquet"
    made_from = _made_from(dataset, split, data_dir, reader.files())
    kept = _kept(path, made_from)
    if kept is not None and (skip_bad or not (kept.skipped or kept.lenient)):
        return kept
    scan = reader.scan(skip_bad=skip_bad, progress=progress)
    # A file that was written to meanwhile may have been read before or after.
    if _made_from(dataset, split, data_dir, reader.files()) == made_from:
        _keep(path, scan, made_from)
        if not isinstance(scan.index.clips, pa.Table):
            return _kept(path, made_from) or scan
    return scan


def _made_from(dataset: Dataset, split: str, data_dir: Path, files: Sequence[str]) -> str:
    """The digest of all that a scan's outcome depends on."""
    entry = asdict(dataset)
    entry["splits"] = entry["splits"][split]
    states = [(name, *_state(data_dir / name)) for name in files]
    return fingerprint({"dataset": entry, "split": split, "code": reading_code(), "files": states})


def _state(path: Path) -> tuple[int, ...]:
    """What changes with a file. The time of the last change of the inode is the one that nobody can set."""
    try:
        found = path.stat()
    except OSError:
        return ()  # the scan says what is wrong
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


@cache
def reading_code() -> str:
    """The version of what reads and lists clips, and a digest of its source."""
    data = Path(__file__).parent
    sources = [data.parent / "clips.py", data / "sampling.py", *sorted((data / "readers").rglob("*.py"))]
    return f"{version_of('scivid')} {sha256(b''.join(path.read_bytes() for path in sources)).hexdigest()}"


def _keep(path: Path, scan: Scan, made_from: str) -> None:
    about = {
        "made_from": made_from,
        "digest": scan.index.digest,
        "frames_digest": scan.index.frames_digest,
        "skipped": [asdict(clip) for clip in scan.skipped],
        "notes": scan.notes,
        "lenient": scan.lenient,
    }
    described = {ABOUT: json.dumps(about).encode()}
    if isinstance(scan.index.clips, pa.Table):
        keep(path, parquet_sealed(scan.index.clips.replace_schema_metadata(described)), what=WHAT)
    else:
        with unless_kept(path, what=WHAT):
            write_grouped(path, CLIP_SCHEMA, scan.index.blocks(), described)
    remove_leftovers(path.parent)


def _kept(path: Path, made_from: str) -> Scan | None:
    """A scan that was kept and is whole, and was made from the same; else None."""
    try:
        # Of very many clips no more than the end: to compare all of them takes minutes. What is read of them
        # later is compared then.
        groups = row_groups(path)
        table = read_parquet(path, required=True) if groups is None else pa.table({})
        about = json.loads((table.schema.metadata if groups is None else groups.metadata)[ABOUT])
        if about["made_from"] != made_from:
            return None
        if groups is None:
            index = ClipIndex(table.replace_schema_metadata(None).cast(CLIP_SCHEMA))
        else:
            index = ClipIndex(groups, (about["digest"], about["frames_digest"]))
        skipped = tuple(SkippedClip(**clip) for clip in about["skipped"])
        whole = index.digest == about["digest"]
        notes, lenient = tuple(about["notes"]), bool(about["lenient"])
        return Scan(index=index, skipped=skipped, notes=notes, lenient=lenient) if whole else None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, DataError):
        # A broken file costs one scan, which writes it anew.
        return None
