"""Tables too long for memory: Parquet files written a group of rows at a time, and read so.

They are sealed as any other file of ours, but to compare the seal means to read all of it. So every page has
its checksum besides, and the end of the file its digest: whatever is read is compared with these.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO
from weakref import finalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Integer

from featcache.system.files import Staged, opened_ranges
from featcache.system.sealed import KEY, UNSEALED, BrokenSealError, seal_file

MOST_END_BYTES = 2**26
"""The end of a file takes about 1 KB a group; that of 10^8 rows 1.5 MB."""

GROUP_ROWS = 65_536
"""Rows of a group: what is in memory at a time, and what is read for one row."""

MOST_HELD = 2**21
"""Rows that a `Spool` holds in memory, about 450 bytes each as they come."""

_END = b"scivid-end-sha256:"
"""Stands in the end of a file before the digest of that end, for which there are zeros in its place."""

_DIGITS = re.compile(rb"(scivid-(?:end-)?sha256:)[0-9a-f]{64}")


class RowGroups:
    """The rows of a Parquet file that was written by `write_grouped`, read as far as they are asked for."""

    def __init__(self, path: Path, columns: Sequence[str] = ()) -> None:
        """Read the end of a file.

        Args:
            path: of it.
            columns: that are of interest; all without a name.

        Raises:
            ValueError: it is no such file.
            OSError: it cannot be read, or is no regular file.
        """
        self.path = path
        with self._opened() as opened, _as_value_error():
            _refuse_other_end(opened)
            self._footer = pq.read_metadata(opened)
            schema = self._footer.schema.to_arrow_schema().remove_metadata()
        self.schema = pa.schema([schema.field(name) for name in columns or schema.names])
        self._last: tuple[int, pa.Table] | None = None

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return int(self._footer.num_rows)

    @property
    def metadata(self) -> Mapping[bytes, bytes]:
        """What is said beside the table."""
        return self._footer.metadata or {}

    def blocks(self, *columns: str) -> Iterator[pa.Table]:
        """Some columns, `GROUP_ROWS` rows at a time, in order.

        Raises:
            ValueError: what is read was changed after it was written.
            OSError: the file cannot be read.
        """
        with self._opened() as opened:
            file = self._parquet(opened)
            for group in range(self._footer.num_row_groups):
                yield _rows_of(file, group, columns or self.schema.names)

    def column(self, name: str) -> pa.ChunkedArray:
        """All of one column, in memory; raises as `blocks`."""
        return pa.concat_tables(self.blocks(name)).column(0)

    def take(self, rows: Sequence[int] | Integer[np.ndarray, " n"], *columns: str) -> pa.Table:
        """Some rows in the order given, repeats allowed; reads their groups alone, and raises as `blocks`."""
        names = columns or self.schema.names
        groups, places = np.divmod(np.asarray(rows, np.int64), GROUP_ROWS)
        found, order = [self.schema.empty_table().select(names)], np.empty(len(places), np.int64)
        for group in np.unique(groups).tolist():
            of_group = np.flatnonzero(groups == group)
            order[of_group] = sum(map(len, found)) + np.arange(len(of_group))
            found.append(self._group(group, names).take(places[of_group]))
        return pa.concat_tables(found).take(order)

    def _group(self, group: int, names: Sequence[str]) -> pa.Table:
        """The rows of one group: the last one stays, for rows are often asked for in order, one by one."""
        last = self._last
        if last is None or last[0] != group or not set(names) <= set(last[1].column_names):
            with self._opened() as opened:
                last = self._last = group, _rows_of(self._parquet(opened), group, names)
        return last[1].select(names)

    def _parquet(self, opened: BinaryIO) -> pq.ParquetFile:
        with _as_value_error():
            return pq.ParquetFile(opened, metadata=self._footer, page_checksum_verification=True)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        with opened_ranges(self.path) as file:
            yield file


def row_groups(path: Path, columns: Sequence[str] = ()) -> RowGroups | None:
    """The rows of the file at a path, arguments as of `RowGroups`; None where there is no such file."""
    try:
        return RowGroups(path, columns)
    except (OSError, ValueError):
        return None


def write_grouped(
    path: Path, schema: pa.Schema, blocks: Iterable[pa.Table], about: Mapping[bytes, bytes | str]
) -> None:
    """Write a sealed table of many rows, published whole.

    Args:
        path: of the file.
        schema: of the table.
        blocks: its rows, of each but the last as many as a multiple of `GROUP_ROWS`.
        about: what the file says beside them.
    """
    with Staged(path) as staged:
        with open(staged.fd, "r+b", closefd=False) as file:
            _write(file, schema, blocks, {**about, KEY: UNSEALED})
            _mark_end(file)
        seal_file(staged.fd)
        staged.publish()


class Spool:
    """Rows that come piece by piece: a table while they are few, a temporary file once they are many."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._waiting, self._n_waiting = schema, [schema.empty_table()], 0
        self._file: Any = None

    def add(self, rows: pa.Table) -> None:
        """The next rows."""
        self._waiting.append(rows)
        self._n_waiting += len(rows)
        if self._n_waiting > MOST_HELD:
            self._write(self._n_waiting // GROUP_ROWS * GROUP_ROWS)

    def finish(self) -> "pa.Table | RowGroups":
        """All rows; a file lasts as long as what this returns."""
        if self._file is None:
            return pa.concat_tables(self._waiting)
        self._write(self._n_waiting)
        self._writer.close()
        _mark_end(self._file)
        fd = os.dup(self._file.fileno())
        found = RowGroups(Path(f"/dev/fd/{fd}"))
        finalize(found, os.close, fd)
        return found

    def _write(self, n_rows: int) -> None:
        if self._file is None:
            # Without a name, so that nothing is left of it however the process ends.
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lasts
            finalize(self, self._file.close)
            self._writer = _writer(self._file, self._schema, {})
        rows = pa.concat_tables(self._waiting)
        if n_rows:  # a group without rows would count as one
            self._writer.write_table(rows.slice(0, n_rows), row_group_size=GROUP_ROWS)
        # Copied: a slice would keep all of the rows.
        left = rows.slice(n_rows)
        self._waiting, self._n_waiting = [left.take(np.arange(len(left)))], len(left)


def _write(file: BinaryIO, schema: pa.Schema, blocks: Iterable[pa.Table], about: Mapping[Any, Any]) -> None:
    with _writer(file, schema, about) as writer:
        for block in blocks:
            writer.write_table(block, row_group_size=GROUP_ROWS)
    file.flush()


def _writer(file: BinaryIO, schema: pa.Schema, about: Mapping[Any, Any]) -> pq.ParquetWriter:
    described = schema.with_metadata({**about, "end": _END + b"0" * 64})
    return pq.ParquetWriter(file, described, write_page_checksum=True, write_statistics=False)


def _end_of(file: BinaryIO) -> bytes:
    """What a Parquet file says of itself, behind its pages.

    Raises:
        ValueError: it is no such file.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    length, magic = int.from_bytes(file.read(4), "little") + 8, file.read()
    if magic != b"PAR1" or length > min(size, MOST_END_BYTES):
        raise ValueError("is no Parquet file")
    file.seek(size - length)
    return file.read(length)


def _end_digest(end: bytes) -> bytes:
    return sha256(_DIGITS.sub(rb"\1" + b"0" * 64, end)).hexdigest().encode()


def _mark_end(file: BinaryIO) -> None:
    end = _end_of(file)
    file.seek(end.index(_END) + len(_END) - len(end), os.SEEK_END)
    file.write(_end_digest(end))
    file.flush()


def _refuse_other_end(file: BinaryIO) -> None:
    """Raise ValueError unless the file is one of ours in groups of rows, and its end what was written."""
    end = _end_of(file)
    if _END not in end:
        raise ValueError("is no table in groups of rows")
    if _END + _end_digest(end) not in end:
        raise BrokenSealError


def _rows_of(file: pq.ParquetFile, group: int, columns: Sequence[str]) -> pa.Table:
    with _as_value_error():
        rows = file.read_row_group(group, columns=list(columns), use_threads=False)
    return rows.replace_schema_metadata(None)


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Raise what Arrow says of a file's bytes as ValueError; what the system says, as it is."""
    try:
        yield
    except (pa.ArrowException, OSError) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise
        raise ValueError(f"is no whole Parquet file ({problem})") from problem
