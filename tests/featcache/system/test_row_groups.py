"""Long tables: what is asked for is read, and all that is read was compared with its checksum."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache.system import row_groups as module
from featcache.system.row_groups import GROUP_ROWS, RowGroups, Spool, row_groups, write_grouped
from featcache.system.sealed import BrokenSealError, check_file

N = 2 * GROUP_ROWS + 1000
SCHEMA = pa.schema([("number", pa.int64()), ("name", pa.string()), ("list", pa.list_(pa.int32()))])


def rows(start: int, stop: int) -> pa.Table:
    numbers = range(start, stop)
    columns = {
        "number": numbers, "name": [f"row {i}" for i in numbers], "list": [[i] * (i % 3) for i in numbers]
    }  # fmt: skip
    return pa.table({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()})


ALL = rows(0, N)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "table.parquet"
    blocks = (ALL.slice(start, GROUP_ROWS) for start in range(0, N, GROUP_ROWS))
    write_grouped(path, SCHEMA, blocks, {b"about": "a test"})
    return path


def test_all_or_some_of_a_table_are_read(written: Path) -> None:
    table = RowGroups(written)
    assert (table.num_rows, table.metadata[b"about"]) == (N, b"a test")
    assert table.schema.equals(SCHEMA)
    assert [len(block) for block in table.blocks()] == [GROUP_ROWS, GROUP_ROWS, 1000]
    assert pa.concat_tables(table.blocks()).equals(ALL)
    assert table.column("name").equals(ALL.column("name"))
    some = [N - 1, 5, GROUP_ROWS, 5, GROUP_ROWS - 1, 0]
    assert table.take(some).equals(ALL.take(some))
    assert table.take(np.array([7, 3]), "list").to_pydict() == {"list": [[7], []]}
    assert table.take([], "name").num_rows == 0
    names = RowGroups(written, ["name"])
    assert names.schema.names == names.take([1]).column_names == ["name"]
    # Any program reads it.
    assert pq.read_table(written).replace_schema_metadata(None).equals(ALL)


def test_one_row_is_found_without_reading_the_others(written: Path) -> None:
    before = pa.total_allocated_bytes()
    table = RowGroups(written)
    found = table.take([1], "number")
    assert found.to_pydict() == {"number": [1]}
    assert pa.total_allocated_bytes() - before < 2 * 8 * GROUP_ROWS


def test_a_bit_that_flipped_is_told_by_what_has_it(written: Path, tmp_path: Path) -> None:
    good, path = written.read_bytes(), tmp_path / "table.parquet"
    assert check_file(written)
    rng = random.Random(0)
    n_told = 0
    for at in [*rng.sample(range(len(good)), 60), *range(len(good) - 400, len(good), 7)]:
        path.write_bytes(good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :])
        with pytest.raises(BrokenSealError):
            assert check_file(path)  # where the seal's own mark was hit, it has none
        table = row_groups(path)
        if table is None:
            n_told += 1
            continue
        try:
            read = pa.concat_tables(table.blocks())
        except ValueError:
            n_told += 1
        else:
            # Only the seal itself, which reading does not ask for, or a gap between pages.
            assert read.equals(ALL)
    assert n_told > 100


def test_a_table_that_was_cut_or_is_another_kind_is_none(written: Path, tmp_path: Path) -> None:
    good, path = written.read_bytes(), tmp_path / "table.parquet"
    for content in (good[:-1], good[: len(good) // 2], b"", b"PAR1", good + b"PAR1"):
        path.write_bytes(content)
        assert row_groups(path) is None
    pq.write_table(ALL, path)
    assert row_groups(path) is None
    assert row_groups(tmp_path / "none") is None


def test_a_writer_that_is_interrupted_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(b"before")

    def some() -> Iterator[pa.Table]:
        yield ALL.slice(0, GROUP_ROWS)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_grouped(path, SCHEMA, some(), {})
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_rows_that_come_are_held_while_they_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pieces = [rows(start, start + 50_000) for start in range(0, 150_000, 50_000)]
    few = Spool(SCHEMA)
    few.add(pieces[0])
    assert few.finish().equals(pieces[0])
    assert Spool(SCHEMA).finish().num_rows == 0
    monkeypatch.setattr(module, "MOST_HELD", 70_000)
    many = Spool(SCHEMA)
    for piece in pieces:
        many.add(piece)
    found = many.finish()
    assert isinstance(found, RowGroups)
    assert [len(block) for block in found.blocks()] == [GROUP_ROWS, GROUP_ROWS, 150_000 - 2 * GROUP_ROWS]
    assert pa.concat_tables(found.blocks()).equals(pa.concat_tables(pieces))
    assert not list(tmp_path.iterdir()), "a file without a name: a kill leaves nothing"
