"""Values a frame from videos are those of the clips as they were scored."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pytest

from featcache.errors import CallError
from readouts.predict.kinds import kind_of
from readouts.predict.kinds.values import Values
from tests.own_measurements import write_bright, write_glow
from tests.readouts.own_dots import scivid
from tests.readouts.own_lab import Lab

N_FRAMES = 8
"""Of a clip."""


@pytest.mark.parametrize("stride", [1, 2])
def test_a_value_a_frame(stride: int, tmp_path: Path) -> None:
    videos, places = write_bright(tmp_path / "bright"), ["--cache-dir", tmp_path / "features"]
    write_glow(videos / "glow.csv")
    scivid("data", "init", videos, "--frames", N_FRAMES, "--stride", stride, "--every", 8)
    common = ["--manifest", videos / "scivid.yaml", "--backbone", "resize", "--task", "bright"]
    scivid("extract", *common, "--data-dir", videos, *places)
    quick = [word for one in ("steps=30", "warmup=3", "minival_every=30") for word in ("--set", one)]
    places += ["--results-dir", tmp_path / "results", "--readout", "linear"]
    scivid("train-readout", *common, *places, *quick)
    (run,) = (tmp_path / "results" / "bright").glob("resize-*")
    (store,) = (tmp_path / "features" / "bright" / "val").glob("resize-*.zarr")
    scivid("predict", "--store", store, "--run", run, "--out", tmp_path / "val.csv")
    with (tmp_path / "val.csv").open() as file:
        clips = list(csv.DictReader(file))
    # Windows that do not overlap: a frame has one value.
    call = ["predict", videos / clips[0]["file"], "--run", run, "--out", tmp_path / "new.csv"]
    span = (N_FRAMES - 1) * stride + 1
    said = scivid(*call, "--every", span)
    assert ("on a straight line" in said) == (stride > 1)
    table = pa_csv.read_csv(tmp_path / "new.csv")
    assert (table.column_names, len(table)) == (["video", "frame", "time", "glow"], 48)
    values = table["glow"].to_numpy()
    found = 0
    for clip in clips:
        first = int(clip["first"])
        if first % span == 0 and first + span <= 48:
            expected = [float(clip[f"frame {frame}"]) for frame in range(N_FRAMES)]
            np.testing.assert_allclose(values[first : first + span : stride], expected, rtol=1e-4)
            between = (values[first] + values[first + stride]) / 2
            assert stride == 1 or values[first + 1] == pytest.approx(between, rel=1e-5)
            found += 1
    assert found
    assert (tmp_path / "new_pictures" / f"{Path(clips[0]['file']).stem}.png").exists()
    refused = " ".join(scivid(*call[:-1], tmp_path / "new.boris", code=2).split())
    assert "predicts values, which make no bouts: name a file that ends in one of .parquet, .csv" in refused


def test_kinds_are_told_apart(lab: Lab) -> None:
    run = lab.load()
    run.gives = {**run.gives, "are_labels": False, "of_frames": True, "score": "speed/rmse"}
    kind = kind_of(run, "attention", [], threshold="val", points=None)
    assert isinstance(kind, Values) and kind.names == ("speed",)
    run.gives = {**run.gives, "of_frames": False}
    assert Values.of(run).names == ("dig", "rest")
    with pytest.raises(CallError, match="follows no points"):
        kind_of(run, "attention", [], threshold="val", points=Path("p.csv"))
    run.gives = {**run.gives, "takes": "fields"}
    with pytest.raises(CallError, match=r"extract a split of them .* then predict it with --store"):
        kind_of(run, "attention", [], threshold="val", points=None)
