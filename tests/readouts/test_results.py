"""The results table: rows come back as they went in, a rerun replaces its own, anybody's Parquet reads it."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from readouts.results import SCHEMA, add_run, load_results, table_path


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
