"""The results table: rows come back as they went in, a rerun replaces its own, anybody's Parquet reads it."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache.errors import StoreError
from readouts.results.table import (
    SCHEMA,
    add_run,
    is_named,
    load_results,
    name_of,
    readable_results,
    run_rows,
    short_name_of,
    table_path,
)


def row(run: str, second: int, **values: object) -> dict[str, object]:
    finished = datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)
    return {"run": run, "finished": finished, "task": "t", "readout": "linear", **values}


def test_rows_come_back_oldest_first(tmp_path: Path) -> None:
    add_run(tmp_path, "b", [row("b", 2, val=0.5)])
    add_run(tmp_path, "a", [row("a", 3, val=0.25), row("a", 3, readout="attention", val=0.75)])
    rows = load_results(tmp_path)
    assert [(r["run"], r["readout"], r["val"]) for r in rows] == [
        ("b", "linear", 0.5),
        ("a", "attention", 0.75),
        ("a", "linear", 0.25),
    ]
    assert set(rows[0]) == set(SCHEMA.names)
    assert rows[0]["test"] is None


def test_a_rerun_replaces_its_rows(tmp_path: Path) -> None:
    add_run(tmp_path, "a", [row("a", 1, val=0.1)])
    add_run(tmp_path, "a", [row("a", 2, val=0.2)])
    assert [r["val"] for r in load_results(tmp_path)] == [0.2]


def test_the_folder_is_one_parquet_table(tmp_path: Path) -> None:
    for run in "abc":
        add_run(tmp_path, run, [row(run, 1)])
    assert pq.read_table(table_path(tmp_path)).num_rows == 3
    assert not list(table_path(tmp_path).glob(".*"))


def test_an_unknown_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no columns \\['colour'\\]"):
        add_run(tmp_path, "a", [row("a", 1, colour="red")])
    assert load_results(tmp_path) == []


def test_columns_that_an_older_version_did_not_write_are_none(tmp_path: Path) -> None:
    file = add_run(tmp_path, "a", [row("a", 1, val=0.5)])
    kept = [field for field in SCHEMA if field.name not in ("task_spec", "n_test", "targets")]
    pq.write_table(pa.Table.from_pylist([row("a", 1, val=0.5)], schema=pa.schema(kept)), file)
    (found,) = load_results(tmp_path)
    assert (found["val"], found["task_spec"], found["n_test"]) == (0.5, None, None)


def test_a_broken_file_is_named_and_hinders_no_other_run(tmp_path: Path) -> None:
    add_run(tmp_path, "a", [row("a", 1, val=0.5)])
    (table_path(tmp_path) / "b.parquet").write_bytes(b"not parquet")
    with pytest.raises(StoreError, match=r"b\.parquet cannot be read as results"):
        load_results(tmp_path)
    assert [r["val"] for r in run_rows(tmp_path, "a")] == [0.5]
    assert run_rows(tmp_path, "c") == []


def test_one_flipped_bit_of_the_results_is_noticed_and_costs_one_run(
    tmp_path: Path, flips: Callable[..., Iterator[int]]
) -> None:
    add_run(tmp_path, "a", [row("a", 1, val=0.5)])
    file = add_run(tmp_path, "b", [row("b", 2, val=0.284, scores='{"val": {"mean_AP": 0.284}}')])
    for at in flips(file, 60):
        rows, (problem,) = readable_results(tmp_path)
        assert [found["run"] for found in rows] == ["a"], at
        assert str(file) in str(problem)
        with pytest.raises(StoreError, match=r"b\.parquet cannot be read as results .*delete it and give"):
            run_rows(tmp_path, "b")
    assert [found["val"] for found in load_results(tmp_path)] == [0.5, 0.284]


def test_rows_of_another_run_under_this_ones_name_are_refused(tmp_path: Path) -> None:
    file = add_run(tmp_path, "a", [row("a", 1, val=0.5)])
    (table_path(tmp_path) / "b.parquet").write_bytes(file.read_bytes())
    with pytest.raises(StoreError, match=r"b\.parquet cannot be read as results \(holds the run a\)"):
        run_rows(tmp_path, "b")


@pytest.mark.parametrize("name", ["pipe", "folder", "zeros"])
def test_what_is_no_regular_file_is_no_table(tmp_path: Path, name: str) -> None:
    add_run(tmp_path, "a", [row("a", 1)])
    path = table_path(tmp_path) / f"{name}.parquet"
    make: dict[str, Callable[[], None]] = {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "zeros": lambda: path.symlink_to("/dev/zero"),
    }
    make[name]()
    rows, (problem,) = readable_results(tmp_path)
    assert [found["run"] for found in rows] == ["a"]
    assert f"{name}.parquet" in str(problem)


@pytest.mark.parametrize("damage", [{"scores": "{"}, {"scores": "3"}, {"task": None}])
def test_a_row_that_no_version_wrote_is_refused(tmp_path: Path, damage: dict[str, object]) -> None:
    file = table_path(tmp_path) / "a.parquet"
    file.parent.mkdir()
    pq.write_table(pa.Table.from_pylist([row("a", 1) | damage], schema=SCHEMA), file)
    with pytest.raises(StoreError, match=r"a\.parquet cannot be read as results"):
        load_results(tmp_path)


def test_the_scheme_is_the_published_one() -> None:
    # The examples of the proposal: addresses of four bytes.
    assert name_of("7f000001") == "lusab-babad"
    assert name_of("3f54dcc1") == "gutih-tugad"


def test_every_run_has_a_name_of_its_own_and_another_name_stays_as_it_is() -> None:
    digits = ["".join(four) for four in product("0f", "07", "1e", "89")]
    assert len({name_of(one) for one in digits}) == len(digits)
    assert short_name_of("9693d2e333be") == "nipig-tarog"
    assert name_of("sweep one") == "sweep one"


def test_a_beginning_names_a_run_in_letters_or_in_digits() -> None:
    run = "9693d2e333be"
    assert all(is_named(run, text) for text in ("nip", "nipig-ta", name_of(run), "969", run))
    assert not any(is_named(run, text) for text in ("ni", "nipog", "970", "nipig-tarog-gavuv-b"))
