"""Walks by the command line after which an old score, or one of other data, could pass for a new one."""

import fcntl
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import app
from tests.featcache.data.readers.video.small_videos import write_video

MANIFEST = """
datasets:
  cages:
    {title: Cages, source: lab, licence: none, citation: none, version: "1", reader: video_file,
     classes: [rest, dig], splits: {train: {files: "*.mp4", clips: train.csv},
     val: {files: "*.mp4", clips: val.csv}, test: {files: "*.mp4", clips: test.csv}}}
tasks:
  cages: {title: What they do, kind: classification, clip: {n_frames: 4, stride: 2},
          splits: {train: cages/train, val: cages/val, test: cages/test}}
"""
OWN_TASK = """
from pathlib import Path
from featcache.manifest import load_manifest
from readouts.tasks.classification import Classification
class Halved(Classification):
    def loss(self, outputs, targets):
        return 0.5 * super().loss(outputs, targets)
TASK = Halved.of(load_manifest(Path("own.yaml")), "cages")
"""
SETTINGS = ("steps=10", "warmup=2", "minival_every=10", "val_every=10", "batch=4")


def scivid(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def extract(*words: str) -> str:
    return scivid(
        "extract", "--backbone", "resize", "--task", "cages", "--manifest", "own.yaml", "--data-dir", "data",
        "--device", "cpu", *words,
    )  # fmt: skip


def train(*words: str, task: str = "cages", code: int = 0) -> str:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return scivid(
        "train-readout", "--backbone", "resize", "--task", task, "--readout", "linear", *settings,
        "--manifest", "own.yaml", "--device", "cpu", *words, code=code,
    )  # fmt: skip


def report() -> str:
    scivid("report", "--manifest", "own.yaml", "--markdown", "page.md")
    assert (
        "<strong>Note.</strong>" in Path("report.html").read_text()
        or "Not all" not in Path("page.md").read_text()
    )
    return Path("page.md").read_text()


def clip_list(role: str, *videos: str, start: int = 0) -> None:
    rows = [f"{v}.mp4,{f},{('rest', 'dig')[(f // 16) % 2]}" for v in videos for f in range(start, 80, 16)]
    Path(f"data/{role}.csv").write_text("\n".join(["video,first_frame,labels", *rows, ""]))


@pytest.fixture
def cages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four short videos, lists of their clips, and a store of each split, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate("abcd"):
        write_video(tmp_path / "data" / f"{name}.mp4", 100 + i, gap=i)
    Path("own.yaml").write_text(MANIFEST)
    for role, videos in (("train", "ab"), ("val", "c"), ("test", "d")):
        clip_list(role, *videos)
    extract()


def test_labels_corrected_another_loss_and_another_test_are_never_seeds(cages: None) -> None:
    fresh = train("--test")
    assert "note:" not in fresh and "nothing computed" not in fresh
    again = train("--test")
    assert re.search(r"test [\d.]+ \(was in the table since 20[-\d: ]+: nothing computed\)", again)
    val = Path("data/val.csv")
    val.write_text(val.read_text().replace("c.mp4,16,dig", "c.mp4,16,rest"))
    stale = train("--test")
    assert re.search(
        r"note: .*/data/val.csv was edited since resize-\w+\.zarr \(val\) was extracted by it", stale
    )
    assert "nothing computed" in stale
    assert re.search(r"note: .*val.csv was edited", scivid(
        "sweep", "--grid", "task=cages backbone=resize readout=knn", "--manifest", "own.yaml", "--dry-run",
    ))  # fmt: skip
    # The command of the note is one that helps.
    assert "val was there: no feature was computed, the labels of 1 clips are new" in extract(
        "--split", "val"
    )
    assert "note:" not in (relabelled := train("--test")) and "nothing computed" not in relabelled
    train("--test", "--seed", "1")
    Path("my_task.py").write_text(OWN_TASK)
    train("--test", "--seed", "2", task="my_task.py:TASK")
    page = report()
    assert (
        len(re.findall(r"\| 2 \| [^|]*\| 0 \| exact \|", page)) == 1
    )  # the two seeds on the corrected labels
    assert len(re.findall(r"\| 1 \| [^|]*\| 0 \| exact \|", page)) == 2
    assert "Not all rows are of the same task: " in page and "| task my_task.py:TASK, val data " in page
    assert "Not all rows were scored on the same clips and labels of val: " in page
    html = Path("report.html").read_text()
    assert "not to be repeated: the labels of val are others now" in html
    clip_list("test", "c", "d")
    Path("features/cages/test").rename("old")
    extract("--split", "test")
    tested = train("--test")
    assert "note: test was scored on other clips or labels before; that score is replaced" in tested
    assert "videos of test are videos of val as well (c.mp4)" in tested
    page = report()
    assert "that have a test score have it of the same clips and labels" in page
    assert "videos of test are videos of val as well" in page


def test_a_video_on_both_sides_is_told_at_training_and_on_the_page(cages: None) -> None:
    clip_list("val", "b", "c", start=3)
    Path("features/cages/val").rename("old")
    extract("--split", "val")  # alone: nothing to compare with
    says = "1 of the 2 videos of val are videos of train as well (b.mp4)"
    assert f"note: {says}: val says little of other videos." in train("--test")
    assert says in report()
    swept = scivid(
        "sweep", "--grid", "task=cages backbone=resize readout=knn", "--manifest", "own.yaml", "--test"
    )
    assert f"note: {says}" in swept


def test_a_sweep_of_which_others_hold_runs_is_not_done(cages: None) -> None:
    words = ("sweep", "--grid", "task=cages backbone=resize readout=knn k=3,5", "--manifest", "own.yaml")
    scivid(*words)
    one, _ = sorted(Path("results/cages").glob("resize-*"))
    for file in Path("results/results.parquet").glob(f"{one.name.partition('-')[2]}*"):
        file.unlink()
    with (one / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = scivid(*words, code=1)
    assert "another process is training cages resize knn" in told
    assert "1 of 2 runs are being trained by other processes, see above: run the same command again" in told
    scivid(*words)
    assert len(list(Path("results/results.parquet").glob("*.parquet"))) == 2
