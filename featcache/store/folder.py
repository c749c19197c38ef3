"""Everything of a store but its shards: where it may be, whose it is, what lies beside the tokens."""

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featcache.clips import ClipIndex
from featcache.errors import StoreError
from featcache.store.frame_table import write_frame_table
from featcache.store.header import StoreHeader, read_header
from featcache.store.rows import FrameTable
from featcache.store.zarr_format import array_metadata, json_bytes
from featcache.system.files import PARTIAL, Lock, publish, sweep

LOCK = ".lock"


def refuse_foreign(path: Path) -> None:
    """Refuse a folder with anything in it that is not ours.

    Raises:
        StoreError: names what is there.
    """
    if (path / "zarr.json").exists():
        read_header(path)
    elif path.exists():
        found = [path.name] if not path.is_dir() else sorted(entry.name for entry in path.iterdir())
        strange = [name for name in found if name != LOCK and not name.endswith(PARTIAL)]
        if strange:
            raise StoreError(
                f"{path} is there and is not a feature store (it has {few(strange)}): "
                "move it away, or choose another cache folder."
            )


def hold(path: Path) -> Lock:
    """Make the store at `path` this process's own until the lock is released.

    Raises:
        StoreError: another process has it.
    """
    busy = f"{path} is being written by another process: wait for it, or end it and run this command again."
    return Lock(path / LOCK, wait=False, busy=busy)


def lay_out(path: Path, header: StoreHeader, clips: ClipIndex, frames: FrameTable | None) -> None:
    """Write everything but the shards.

    The root first where there is none, so that a folder with anything in it is known as ours; else last, for
    its digest vouches for the clip table: a kill in between shows, and the next run mends it.
    """
    root, spec = path / "zarr.json", header.spec
    if not root.exists():
        publish(root, json_bytes(header.metadata()))
    for array in spec.all_arrays:
        publish(path / array.name / "zarr.json", json_bytes(array_metadata(array)))
    write_frame_table(path, spec, frames)
    table = clips.clips
    for name, values in spec.rows.location_columns(spec.clips_per_shard).items():
        table = table.append_column(name, pa.array(values))
    publish(path / "clips.parquet", parquet_bytes(table.replace_schema_metadata(None)))
    publish(root, json_bytes(header.metadata()))
    sweep(path)


def parquet_bytes(table: pa.Table) -> bytes:
    """A Parquet file in memory."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def few(things: Iterable[object], n: int = 5) -> str:
    """The first of them, and how many more there are."""
    names = [str(thing) for thing in things]
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def header_from_disk(header: StoreHeader) -> StoreHeader:
    """The header as it will be read: through JSON and back."""
    return StoreHeader.from_metadata(json.loads(json_bytes(header.metadata())))
