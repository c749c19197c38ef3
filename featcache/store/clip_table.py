"""The tables beside a store's arrays: one row per clip (`clips.parquet`), and previews of a few clips.

Both are plain Parquet. They carry a seal, and say whose they are: the digest of the clip index, which the
store's header has too, and the store's fingerprint. Those of stores of version 1 carry nothing: the digest of
their clips is computed as they are read.
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featcache.clips import CLIP_SCHEMA, ClipIndex
from featcache.errors import DataError, StoreError
from featcache.store.header import StoreHeader
from featcache.system.files import open_file
from featcache.system.sealed import parquet_sealed, read_parquet

CLIPS = "clips.parquet"
PREVIEWS = "previews.parquet"
_DIGEST, _FEATURES = b"clips_digest", b"features"
_AGAIN = "Run the same `scivid extract` again: it writes the table anew."


def clip_table_bytes(header: StoreHeader, clips: ClipIndex) -> bytes:
    """The file of a store's clips: the rows of the index, and where each of them lies."""
    table, spec = clips.clips, header.spec
    for name, values in spec.rows.location_columns(spec.clips_per_shard).items():
        table = table.append_column(name, pa.array(values))
    return _bytes(table, header, {_DIGEST: header.clips_digest})


def preview_bytes(header: StoreHeader, rows: Iterable[tuple[int, bytes]]) -> bytes:
    """The file of the previews (clip number, JPEG) of a store's clips."""
    clips, jpegs = zip(*sorted(rows), strict=True) if (rows := list(rows)) else ((), ())
    table = pa.table({"clip": pa.array(clips, pa.int32()), "jpeg": pa.array(jpegs, pa.binary())})
    return _bytes(table, header, {_FEATURES: header.fingerprint})


def read_clip_table(store: Path, header: StoreHeader) -> pa.Table:
    """The clips of the store at a path, with the columns that `FeatureStore.clips` names.

    Raises:
        StoreError: the file is missing, damaged, or not the one of this header.
    """
    path = store / CLIPS
    try:
        table = read_parquet(path)
        digest = (table.schema.metadata or {}).get(_DIGEST, b"").decode()
        if not digest or not header.is_sealed:
            digest = ClipIndex(table.select(CLIP_SCHEMA.names).cast(CLIP_SCHEMA)).digest
    except (OSError, KeyError, pa.ArrowException, DataError, ValueError) as problem:
        raise StoreError(f"{path} cannot be read as the clip table: {_said(problem)}. {_AGAIN}") from problem
    if digest != header.clips_digest or len(table) != header.spec.n_clips:
        raise StoreError(_of_others(path, header, digest, len(table)))
    return table.replace_schema_metadata(None)


def refuse_other_clip_table(store: Path, header: StoreHeader) -> None:
    """Refuse a clip table that cannot be the store's, by its last bytes alone.

    Raises:
        StoreError: it is missing, of another store, or has no end that can be read.
    """
    path = store / CLIPS
    try:
        with open_file(path) as file:
            found = pq.read_metadata(file)
    except (OSError, pa.ArrowException, ValueError) as problem:
        raise StoreError(f"{path} cannot be read as the clip table: {_said(problem)}. {_AGAIN}") from problem
    digest = (found.metadata or {}).get(_DIGEST, b"").decode()
    if found.num_rows != header.spec.n_clips or (digest or header.clips_digest) != header.clips_digest:
        raise StoreError(_of_others(path, header, digest or "unknown", found.num_rows))


def read_previews(store: Path, header: StoreHeader) -> dict[int, bytes]:
    """Clip number -> JPEG strip; empty where the store at a path has no such file.

    Raises:
        StoreError: the file is damaged, or another store's.
    """
    path = store / PREVIEWS
    try:
        table = read_parquet(path)
        rows = table.to_pydict()
        found = dict(zip(rows["clip"], rows["jpeg"], strict=True))
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, pa.ArrowException, ValueError) as problem:
        raise StoreError(
            f"{path} cannot be read as previews: {_said(problem)}. They are pictures alone: delete the file."
        ) from problem
    if (table.schema.metadata or {}).get(
        _FEATURES, header.fingerprint.encode()
    ) != header.fingerprint.encode():
        raise StoreError(f"{path} has the previews of another store: delete the file.")
    return found


def _bytes(table: pa.Table, header: StoreHeader, about: dict[bytes, str]) -> bytes:
    if header.is_sealed:
        return parquet_sealed(table.replace_schema_metadata(about))
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(None), sink)
    return bytes(sink.getvalue())


def _of_others(path: Path, header: StoreHeader, digest: str, n_rows: int) -> str:
    return (
        f"{path} is not the clip table that this store was written with: {n_rows} rows with the digest "
        f"{digest}, not {header.spec.n_clips} with {header.clips_digest}. {_AGAIN}"
    )


def _said(problem: Exception) -> str:
    """What went wrong, in one line; a broken seal's words follow the file's name without it."""
    return (getattr(problem, "strerror", None) or str(problem)).split("\n")[0]
