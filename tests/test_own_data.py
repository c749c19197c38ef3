"""A lab's own data other than behaviour, from a folder to a page, by the commands that a user types."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from cli import app
from featcache.manifest import load_manifest
from featcache.store.targets import Targets, open_targets
from readouts.results.table import load_results
from tests.own_measurements import (
    SIZE,
    path_of,
    weather,
    write_bright,
    write_dots,
    write_fields,
    write_glow,
    write_points,
)

QUICK = ["--set", "steps=100", "--set", "warmup=5", "--set", "minival_every=100", "--set", "lr=2e-1"]


def targets_of(out: Path, task: str) -> Targets:
    """Those of the training split."""
    (path,) = (out / "features" / task / "train").glob("targets-*")
    return open_targets(path)


def scivid(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    return write_bright(tmp_path / "bright")


def trained(folder: Path, out: Path, name: str, *init: object, readout: str = "linear") -> str:
    """What all commands say, from the folder to the page."""
    said = scivid("data", "init", folder, *init)
    common = ["--manifest", folder / "scivid.yaml", "--backbone", "resize", "--task", name]
    places = ["--cache-dir", out / "features", "--results-dir", out / "results"]
    said += scivid("extract", *common, "--data-dir", folder, *places[:2])
    said += scivid("train-readout", *common, *places, "--readout", readout, *QUICK)
    said += scivid("report", "--manifest", folder / "scivid.yaml", *places, "--out", out / "report.html")
    said += scivid("data", "init", folder, "--check")
    return said


def test_a_table_of_values_a_frame_becomes_a_readout(bright: Path, tmp_path: Path) -> None:
    write_glow(bright / "glow.csv")
    said = trained(bright, tmp_path, "bright", "--frames", "8", "--stride", "1")
    checked = scivid("data", "init", bright, "--check")
    for part in ("values: glow in lx, one a frame", "11 left out, since none of their frames has a known",
                 "splits: train, val, test, by video"):  # fmt: skip
        assert part in said
    dataset = load_manifest(bright / "scivid.yaml").dataset("bright")
    assert dataset.values is not None
    shown = targets_of(tmp_path, "bright").read("series")
    # Clips of frames 8 to 15 and so on, in steps of 8: all of them known.
    assert shown.shape[1:] == (1, 8)
    assert (dataset.values.mean, dataset.values.std) == pytest.approx((shown.mean(), shown.std()), rel=1e-6)
    (row,) = load_results(tmp_path / "results")
    assert (row["metric"], row["val"] < dataset.values.std) == ("glow/rmse", True)
    assert "Glow: predicted against true" in (tmp_path / "report.html").read_text()
    # Predictions are in the table's unit: their errors are the score.
    (store,) = (tmp_path / "features" / "bright" / "val").glob("resize-*.zarr")
    (run,) = (tmp_path / "results" / "bright").glob("resize-*")
    scivid("predict", "--store", store, "--run", run, "--out", tmp_path / "val.csv")
    with (tmp_path / "val.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    found = np.array([[float(row[f"frame {frame}"]) for frame in range(8)] for row in rows])
    (targets,) = store.parent.glob("targets-*")
    errors = found - open_targets(targets).read("series")[:, 0]
    assert np.sqrt((errors**2).mean()) == pytest.approx(row["val"], rel=1e-3)
    # Predictions in the folder of videos are no truth of theirs.
    scivid("predict", bright, "--run", run, "--out", bright / "seen.csv")
    assert scivid("data", "init", bright, "--check") == checked


def test_a_value_a_video_is_that_of_all_its_clips(bright: Path, tmp_path: Path) -> None:
    values = {f"v{video}": 2.5 * video + 1 for video in range(5)} | {"v5": ""}
    table = tmp_path / "weights.csv"
    table.write_text("file,age,weight_g\n" + "".join(f"{v}.mp4,3,{w}\n" for v, w in values.items()))
    call = ["data", "init", bright, "--labels", table]
    assert "2 columns of numbers (age, weight_g): say which" in scivid(*call, code=1)
    scivid(*call, "--column", "weight_g", "--value-unit", "g")
    scivid("extract", "--manifest", bright / "scivid.yaml", "--backbone", "resize", "--task", "bright",
           "--data-dir", bright, "--cache-dir", tmp_path / "features", "--split", "train")  # fmt: skip
    entry = yaml.safe_load((bright / "scivid.yaml").read_text())["datasets"]["bright"]
    assert (entry["values"]["of"], entry["values"]["unit"]) == ("video", "g")
    listed = "".join(file.read_text() for file in (bright / "clip_lists").iterdir())
    assert "v5.mp4" not in listed
    shown = targets_of(tmp_path, "bright").read("series")
    assert (shown.shape, set(shown.ravel().tolist()) <= {v for v in values.values() if v}) == (
        (3, 1, 1),
        True,
    )


@pytest.fixture
def dots(tmp_path: Path) -> Path:
    return write_dots(tmp_path / "dots")


@pytest.mark.parametrize("form", ["dlc.csv", "dlc.h5", "slp"])
def test_tracked_points_become_a_tracking_readout(form: str, dots: Path, tmp_path: Path) -> None:
    write_points(dots, form)
    call = ["--frames", "8", "--stride", "1", "--every", "6"]
    said = scivid("data", "init", dots, *call)
    assert "kind: tracking" in said
    extract = ["extract", "--manifest", dots / "scivid.yaml", "--backbone", "resize", "--task", "dots"]
    scivid(*extract, "--data-dir", dots, "--cache-dir", tmp_path / "features")
    targets = targets_of(tmp_path, "dots")
    tracks, seen = targets.read("tracks"), targets.read("visibility")
    listed = (dots / "clip_lists" / "train.csv").read_text().splitlines()[1:]
    for row, line in enumerate(listed):
        video, first = int(line[1]), int(line.split(",")[1])
        for place, point in enumerate([0, 1, 2] if first < 20 else [0, 2, 1]):
            frames = slice(first, first + 8)
            is_seen = np.arange(first, first + 8) < 20 if point == 1 else np.ones(8, bool)
            assert seen[row, :, place].tolist() == is_seen.tolist()
            expected = path_of(video, point)[frames][is_seen] / SIZE
            np.testing.assert_allclose(tracks[row, is_seen, place], expected, atol=1e-6)
    if form == "dlc.csv":
        places = ["--cache-dir", tmp_path / "features", "--results-dir", tmp_path / "results"]
        common = ["--manifest", dots / "scivid.yaml", "--backbone", "resize", "--task", "dots"]
        scivid(
            "train-readout",
            *common,
            *places,
            *QUICK,
            "--set",
            "width=32",
            "--set",
            "steps=5",
            "--set",
            "warmup=1",
        )
        (row,) = load_results(tmp_path / "results")
        assert (row["metric"], 0 <= row["val"] <= 1) == ("average_over_thresholds", True)
        scivid("report", "--manifest", dots / "scivid.yaml", *places, "--out", tmp_path / "report.html")
        assert "predicted end points are from their own" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("form", ["NetCDF", "GRIB", "Zarr"])
@pytest.mark.filterwarnings("ignore:In a future version of xarray:FutureWarning")
def test_fields_become_a_forecast(form: str, tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf", reason="needs scivid[fields]")
    sky = tmp_path / "sky"
    write_fields(sky, form)
    asked = scivid("data", "init", sky, code=1)
    assert "there are 4 (" in asked
    assert "benchmark's z=500, t=850, q=700 there are z=500, t=850" in asked
    said = scivid("data", "init", sky, "--variable", "z=500", "--variable", "t=500", "--variable", "t=850",
                  "--frames", "2", "--stride", "2", "--every", "1")  # fmt: skip
    assert "kind: forecast of 2 frames from 2, 12 h apart, a window every 6 h" in said
    manifest = load_manifest(sky / "scivid.yaml")
    dataset = manifest.dataset("sky")
    assert dataset.variables == ("z500", "t500", "t850")
    whole = weather().isel(time=slice(0, 42)).astype(np.float64)
    chosen = [whole["z"][:, 0], whole["t"][:, 0], whole["t"][:, 1]]
    np.testing.assert_allclose(dataset.pixels.mean, [float(one.mean()) for one in chosen], rtol=1e-4)
    np.testing.assert_allclose(dataset.pixels.std, [float(one.std()) for one in chosen], rtol=1e-3)
    changes = [float((one.values[2:] - one.values[:-2]).std()) for one in chosen]
    np.testing.assert_allclose(dataset.residual_std, changes, rtol=1e-3)
    trained_on_fields(sky, tmp_path)
    fields = targets_of(tmp_path, "sky").read("fields")
    # From south to north and from 0 degrees on, whatever the files' order; the third time is the first kept.
    whole = weather().isel(time=slice(2, 42))
    expected = [whole[name].isel(isobaricInhPa=level) for name, level in (("z", 0), ("t", 0), ("t", 1))]
    np.testing.assert_allclose(fields, np.stack(expected, axis=-1)[:, ::-1], rtol=1e-4)
    assert "windows" in scivid("data", "init", sky, "--check")


def trained_on_fields(sky: Path, out: Path) -> None:
    common = ["--manifest", sky / "scivid.yaml", "--backbone", "resize", "--task", "sky"]
    places = ["--cache-dir", out / "features", "--results-dir", out / "results"]
    scivid("extract", *common, "--data-dir", sky, *places[:2])
    small = ["--set", "features=8", "--set", "head_channels=8", "--set", "steps=5", "--set", "warmup=1"]
    scivid("train-readout", *common, *places, *QUICK, *small)
    (row,) = load_results(out / "results")
    assert (row["metric"], row["val"] > 0) == ("z500/rmwse", True)
    scivid("report", "--manifest", sky / "scivid.yaml", *places, "--out", out / "report.html")
    assert "t850: error against lead time" in (out / "report.html").read_text()


def test_a_corrected_value_makes_other_targets_and_no_feature(bright: Path, tmp_path: Path) -> None:
    (bright / "w.csv").write_text("video,w\n" + "".join(f"v{v}.mp4,{v}\n" for v in range(6)))
    scivid("data", "init", bright)
    call = ["extract", "--manifest", bright / "scivid.yaml", "--backbone", "resize", "--task", "bright",
            "--data-dir", bright, "--cache-dir", tmp_path / "features", "--split", "train"]  # fmt: skip
    scivid(*call)
    for file in (bright / "frame_values").iterdir():
        np.save(file, np.load(file) + 1)
    scivid(*call)
    folder = tmp_path / "features" / "bright" / "train"
    assert (len(list(folder.glob("resize-*"))), len(list(folder.glob("targets-*")))) == (1, 2)
