"""A lab's own data other than behaviour, from a folder to a page, by the commands that a user types."""

from pathlib import Path

import av  # noqa: TID253  (videos for the tests)
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from cli import app
from featcache.manifest import load_manifest
from featcache.store.targets import Targets, open_targets
from readouts.results.table import load_results

QUICK = ["--set", "steps=100", "--set", "warmup=5", "--set", "minival_every=100", "--set", "lr=2e-1"]


def targets_of(out: Path, task: str) -> Targets:
    """Those of the training split."""
    (path,) = (out / "features" / task / "train").glob("targets-*")
    return open_targets(path)


def scivid(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def write_frames(path: Path, frames: np.ndarray) -> Path:
    """A lossless video of frames [F Y X rgb]."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"qp": "0", "g": "12"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for frame in frames:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))
            )
        container.mux(stream.encode())
    return path


def levels(video: int, n_frames: int = 48) -> np.ndarray:
    """How bright each frame of a video is."""
    return np.linspace(30 + 25 * video, 60 + 25 * video, n_frames).astype(np.uint8)


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    """Six videos of evenly grey frames, brighter and brighter."""
    folder = tmp_path / "bright"
    folder.mkdir()
    for video in range(6):
        frames = np.broadcast_to(levels(video)[:, None, None, None], (48, 32, 48, 3))
        write_frames(folder / f"v{video}.mp4", frames)
    return folder


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
    rows = ["video,frame,glow (lx)"]
    for video in range(6):
        for frame, level in enumerate(levels(video)):
            # Nobody measured the first frames, nor those of the last video.
            rows.append(f"v{video}.mp4,{frame},{'' if frame < 8 or video == 5 else level / 10}")
    (bright / "glow.csv").write_text("\n".join(rows))
    said = trained(bright, tmp_path, "bright", "--frames", "8", "--stride", "1")
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


def test_a_value_a_video_is_that_of_all_its_clips(bright: Path, tmp_path: Path) -> None:
    values = {f"v{video}": 2.5 * video + 1 for video in range(5)} | {"v5": ""}
    table = tmp_path / "weights.csv"
    table.write_text("file,age,weight_g\n" + "".join(f"{v}.mp4,3,{w}\n" for v, w in values.items()))
    asked = CliRunner().invoke(app, ["data", "init", str(bright), "--labels", str(table)])
    assert (asked.exit_code, "2 columns of numbers (age, weight_g): say which" in asked.output) == (1, True)
    trained(bright, tmp_path, "bright", "--labels", table, "--column", "weight_g", "--value-unit", "g")
    entry = yaml.safe_load((bright / "scivid.yaml").read_text())["datasets"]["bright"]
    assert (entry["values"]["of"], entry["values"]["unit"]) == ("video", "g")
    listed = "".join(file.read_text() for file in (bright / "clip_lists").iterdir())
    assert "v5.mp4" not in listed
    shown = targets_of(tmp_path, "bright").read("series")
    assert (shown.shape, set(shown.ravel().tolist()) <= {v for v in values.values() if v}) == (
        (3, 1, 1),
        True,
    )


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
