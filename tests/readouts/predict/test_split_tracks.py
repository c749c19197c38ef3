"""Points of a store's clips are where the evaluation saw them, those that the clips ask for."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from featcache.errors import CallError
from featcache.system.console import silent
from readouts.heads.tracking import as_tracks
from readouts.predict.splits import predict_split
from readouts.results.per_clip import read_predictions
from readouts.tuning.loaded import load_run
from tests.readouts.own_dots import N_FRAMES, Dots
from tests.readouts.own_lab import CPU


def test_they_are_those_of_the_evaluation(dots: Dots, tmp_path: Path) -> None:
    store, out = dots.store("val"), tmp_path / "val.parquet"
    n = predict_split(load_run(dots.folder.path), "tracking", store, out, device=CPU, progress=silent)
    about, kept = read_predictions(dots.folder, "val")
    assert n == len(about["clip"])
    tracks = as_tracks(torch.from_numpy(kept["tracking"]))
    assert store.targets is not None and tracks.visible is not None
    asked = store.targets.read("visibility")[:, 0]
    clip, shown, point = np.nonzero(np.repeat(asked[:, None], N_FRAMES, axis=1))
    assert not asked.all(), "a point is lost from frame 20 on, and later clips do not ask for it"
    table = pq.read_table(out)
    ids = [about["id"][number].as_py() for number in clip]
    assert (table["clip"].to_pylist(), table["shown"].to_pylist()) == (ids, shown.tolist())
    assert table["point"].to_pylist() == point.tolist()
    for axis, name in enumerate("xy"):
        wanted = tracks.points[clip, shown, point, axis].numpy()
        np.testing.assert_allclose(table[name].to_numpy(), wanted, rtol=1e-4, atol=1e-5)
    wanted = (tracks.visible[clip, shown, point, 0] > 0.5).tolist()
    assert table["visible"].to_pylist() == wanted
    assert {ids[0].rpartition("/")[0]} == {table["file"][0].as_py()}
    with pytest.raises(CallError, match="is a row a clip, frame and point: name a file"):
        predict_split(
            load_run(dots.folder.path), "tracking", store, tmp_path / "t.boris", device=CPU, progress=silent
        )  # fmt: skip
