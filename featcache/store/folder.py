"""Everything that a store has on disk but its shards."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featcache.clips import ClipIndex
from featcache.store.frame_table import write_frame_table
from featcache.store.header import StoreHeader
from featcache.store.rows import FrameTable
from featcache.store.zarr_format import array_metadata, json_bytes
from featcache.system.files import publish, sweep


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
