"""The tables beside a store's arrays: one row per clip (`clips.parquet`), and previews of a few clips.

Both are plain Parquet. They carry a seal, and say whose they are: the digest of the clip index, which the
store's header has too, and the store's fingerprint. Those of stores of version 1 carry nothing: the digest of
their clips is computed as they are read. A table of many clips is in groups of rows
(`featcache.system.row_groups`), of which only those are read that are asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Integer

from featcache.clips import CLIP_SCHEMA, ClipIndex
from featcache.errors import DataError, StoreError
from featcache.store.header import StoreHeader
from featcache.system.files import opened_ranges, publish
from featcache.system.row_groups import GROUP_ROWS, RowGroups, row_groups, write_grouped
from featcache.system.sealed import parquet_sealed, read_parquet

CLIPS = "clips.parquet"
PREVIEWS = "previews.parquet"
_DIGEST, _FEATURES, _ROWS_PER_SHARD = b"clips_digest", b"features", b"rows_per_shard"
_AGAIN = "Run the same `scivid extract` again: it writes the table anew."


def write_clip_table(store: Path, header: StoreHeader, clips: ClipIndex) -> None:
    """Write the table of a store's clips whole, unless it is there.

    Of one in groups of rows it is enough that its end says so: a thousand workers begin with this.
    """
    path = store / CLIPS
    if not header.is_sealed or len(clips) <= GROUP_ROWS:
        publish(path, clip_table_bytes(header, clips))
    elif not _is_there(path, header):
        names = [pa.field(name, pa.int32()) for name in header.spec.rows.location_columns(1, range(0))]
        about = {_DIGEST: header.clips_digest, _ROWS_PER_SHARD: str(header.spec.clips_per_shard)}
        write_grouped(path, pa.schema([*CLIP_SCHEMA, *names]), _located(header, clips), about)


def clip_table_bytes(header: StoreHeader, clips: ClipIndex) -> bytes:
    """The file of a store's clips, which are few: the rows of the index, and where each of them lies."""
    table = pa.concat_tables(_located(header, clips)).combine_chunks()
    return _bytes(table, header, {_DIGEST: header.clips_digest})


def _located(header: StoreHeader, clips: ClipIndex) -> Iterator[pa.Table]:
    """The rows of an index, a block at a time, with where they lie."""
    spec, start = header.spec, 0
    for block in clips.blocks():
        stop = start + len(block)
        for name, values in spec.rows.location_columns(spec.clips_per_shard, range(start, stop)).items():
            block = block.append_column(name, pa.array(values))
        yield block
        start = stop


def _is_there(path: Path, header: StoreHeader) -> bool:
    if (found := row_groups(path)) is None or found.num_rows != header.spec.n_clips:
        return False
    wanted = {_DIGEST: header.clips_digest, _ROWS_PER_SHARD: str(header.spec.clips_per_shard)}
    return all(found.metadata.get(key) == value.encode() for key, value in wanted.items())


def preview_bytes(header: StoreHeader, rows: Iterable[tuple[int, bytes]]) -> bytes:
    """The file of the previews (clip number, JPEG) of a store's clips."""
    clips, jpegs = zip(*sorted(rows), strict=True) if (rows := list(rows)) else ((), ())
    table = pa.table({"clip": pa.array(clips, pa.int32()), "jpeg": pa.array(jpegs, pa.binary())})
    return _bytes(table, header, {_FEATURES: header.fingerprint})


class ClipTable:
    """The clips of a store, with the columns that `FeatureStore.clips` names; read as they are asked for.

    Where they are few, all at once. Every method raises StoreError where the file is missing, damaged, or not
    the one of the store's header.
    """

    def __init__(self, store: Path, header: StoreHeader) -> None:
        self.path, self._header = store / CLIPS, header

    def __len__(self) -> int:
        return self._header.spec.n_clips

    def blocks(self, *columns: str) -> Iterator[pa.Table]:
        """Some columns, all without a name, `GROUP_ROWS` clips at a time."""
        with self._readable():
            if self._groups is not None:
                yield from self._groups.blocks(*columns)
                return
            table = self._whole.select(columns or self._whole.column_names)
        for start in range(0, len(table), GROUP_ROWS):
            yield table.slice(start, GROUP_ROWS)

    def column(self, name: str) -> pa.ChunkedArray:
        """All of one column, in memory."""
        with self._readable():
            return (self._whole if self._groups is None else self._groups).column(name)

    def take(self, clips: Sequence[int] | Integer[np.ndarray, " n"], *columns: str) -> pa.Table:
        """Some clips in the order given."""
        with self._readable():
            if self._groups is not None:
                return self._groups.take(clips, *columns)
            return self._whole.select(columns or self._whole.column_names).take(pa.array(clips, pa.int64()))

    def id(self, clip: int) -> str:
        """The id of one clip."""
        return str(self.take([clip], "id").column(0)[0])

    def whole(self) -> pa.Table:
        """All of it, in memory."""
        with self._readable():
            return self._whole if self._groups is None else pa.concat_tables(self.blocks())

    def check_end(self) -> None:
        """Nothing, if a table in groups of rows has the right end, or any other can be read."""
        with self._readable():
            _ = self._groups or self._whole

    def index(self) -> ClipIndex:
        """The clip index that the rows are of, whose digest is computed anew."""
        with self._readable():
            if self._groups is None:
                return ClipIndex(self._whole.select(CLIP_SCHEMA.names).cast(CLIP_SCHEMA))
            return ClipIndex(RowGroups(self.path, CLIP_SCHEMA.names))

    @cached_property
    def _groups(self) -> RowGroups | None:
        """The table, if it is in groups of rows."""
        found = row_groups(self.path) if self._header.is_sealed else None
        if found is None:
            return None
        digest = found.metadata.get(_DIGEST, b"").decode()
        self._refuse_other(digest, found.num_rows)
        return found

    @cached_property
    def _whole(self) -> pa.Table:
        """The table, if it is not."""
        table = read_parquet(self.path)
        digest = (table.schema.metadata or {}).get(_DIGEST, b"").decode()
        if not digest or not self._header.is_sealed:
            digest = ClipIndex(table.select(CLIP_SCHEMA.names).cast(CLIP_SCHEMA)).digest
        self._refuse_other(digest, len(table))
        return table.replace_schema_metadata(None)

    def _refuse_other(self, digest: str, n_rows: int) -> None:
        if digest != self._header.clips_digest or n_rows != self._header.spec.n_clips:
            raise StoreError(_of_others(self.path, self._header, digest, n_rows))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError, pa.ArrowException, DataError, ValueError) as problem:
            again = _AGAIN if self.__dict__.get("_groups") is None else f"Delete it. {_AGAIN}"
            raise StoreError(
                f"{self.path} cannot be read as the clip table: {_said(problem)}. {again}"
            ) from problem


def refuse_other_clip_table(store: Path, header: StoreHeader) -> None:
    """Refuse a clip table that cannot be the store's, by its last bytes alone.

    Raises:
        StoreError: it is missing, of another store, or has no end that can be read.
    """
    path = store / CLIPS
    try:
        with opened_ranges(path) as file:
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
