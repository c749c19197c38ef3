"""Predictions of single clips come back bit for bit; damage is named."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache.errors import StoreError
from readouts.results.predictions import read_predictions, write_predictions

IDS = pa.chunked_array([pa.array(["a", "b"]), pa.array(["c"])])


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3), (16, 4, 5, 3)])
def test_predictions_of_any_number_of_axes_come_back_bit_for_bit(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "deep" / "p.parquet"
    rng = np.random.default_rng(0)
    given = {kind: rng.normal(size=(3, *shape)).astype(np.float32) for kind in ("linear", "dpt")}
    write_predictions(path, np.array([4, 0, 9]), IDS, given)
    table, found = read_predictions(path)
    assert table.column("clip").to_pylist() == [4, 0, 9]
    assert table.column("id").to_pylist() == ["a", "b", "c"]
    assert list(found) == ["linear", "dpt"]
    for kind, values in given.items():
        np.testing.assert_array_equal(found[kind], values, strict=True)
        assert found[kind].flags.writeable  # torch warns of memory that is not


def test_predictions_of_swapped_axes_keep_their_order(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(3, 2, 4).transpose(0, 2, 1)
    write_predictions(tmp_path / "p.parquet", np.arange(3), IDS, {"tracking": values})
    np.testing.assert_array_equal(read_predictions(tmp_path / "p.parquet")[1]["tracking"], values)


def test_predictions_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    with pytest.raises(StoreError, match=r"p\.parquet cannot be read as predictions .*--again"):
        read_predictions(path)
    write_predictions(path, np.arange(3), IDS, {"linear": np.zeros((3, 2), np.float32)})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"p\.parquet cannot be read as predictions .*--again"):
        read_predictions(path)


def test_other_programs_read_predictions_as_lists(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.parquet", np.arange(3), IDS, {"linear": np.eye(3, dtype=np.float32)})
    rows = pq.read_table(tmp_path / "p.parquet").column("linear").to_pylist()
    assert [list(row) for row in rows] == np.eye(3).tolist()
