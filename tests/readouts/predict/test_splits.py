"""Clips of a store get the scores of the evaluation; other features are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from featcache.errors import CallError, StoreError
from featcache.store.feature_store import find_stores
from featcache.system.console import silent
from readouts.predict.splits import predict_split
from readouts.results.decided import evaluated
from tests.readouts.own_lab import CPU, Lab


def test_they_are_those_of_the_evaluation(lab: Lab, tmp_path: Path) -> None:
    (store,) = find_stores(lab.cache, "mice", "val")
    out = tmp_path / "val.parquet"
    n = predict_split(lab.load(), "attention", store, out, device=CPU, progress=silent)
    table, known = pq.read_table(out), evaluated(lab.folder, "attention", "val")
    assert n == table.num_rows == len(known.ids)
    assert table["clip"].to_pylist() == known.ids
    np.testing.assert_allclose(np.stack([table["dig"], table["rest"]], 1), known.scores, rtol=1e-5)
    video, _, first = known.ids[1].rpartition("/")
    assert (table["file"][1].as_py(), table["first"][1].as_py()) == (video, int(first))


def test_other_features_are_refused(lab: Lab, tmp_path: Path) -> None:
    (store,) = find_stores(lab.cache, "mice", "val")
    run, out = lab.load(), tmp_path / "val.csv"
    parts = {**run.reads.parts, "preprocessing": {"resize": "another"}}
    run.reads = replace(run.reads, parts=parts)
    with pytest.raises(StoreError, match="holds other features"):
        predict_split(run, "attention", store, out, device=CPU, progress=silent)
    run.gives = {**run.gives, "takes": "fields"}
    with pytest.raises(CallError, match=r"there are fields a clip: name a file that ends in one of .nc"):
        predict_split(run, "attention", store, out, device=CPU, progress=silent)
    with pytest.raises(CallError, match="bouts need videos"):
        predict_split(lab.load(), "attention", store, tmp_path / "t.boris", device=CPU, progress=silent)
