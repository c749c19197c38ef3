"""The how-to of one's own videos: every command that it shows runs as it stands, and its lines of Python.

The model is `resize`, which needs no weights, and training is short; nothing else is changed.
"""

import re
import shlex
from pathlib import Path

import pyarrow.csv as pa_csv
import pytest
from typer.testing import CliRunner

from cli import app
from featcache.data.labels.reading import read_labels
from featcache.data.labels.videos import Videos
from tests.own_recordings import bouts_of, write_lab, write_recording

TEXT = (Path(__file__).resolve().parents[1] / "docs/own-data.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, flags=re.DOTALL)
CALLS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
QUICK = "--set steps=60 --set batch=8 --set width=16 --set heads=2 --set minival_every=30 --set warmup=5"


def as_it_stands(line: str) -> list[str]:
    """The words of a call, with a model that needs no weights."""
    line = line.replace("videomae_b", "resize")
    if " train-readout " in line:
        line += f" {QUICK} --set lr=3e-3"
    if " sweep " in line:
        line = line.replace("lr=", "steps=20 width=16 heads=2 minival_every=20 lr=")
    if "STORE" in line:
        (store,) = Path("features/mice/test").glob("resize-*.zarr")
        line = line.replace("STORE.zarr", store.name)
    return shlex.split(line)


def scivid(words: list[str]) -> str:
    assert words[0] == "scivid"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, f"{words}\n{result.output}\n{result.exception!r}"
    return result.output


@pytest.mark.slow
def test_every_line_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCIVID_DATA_DIR", raising=False)
    write_lab(Path("mice"), n_frames=160)
    for number, name in enumerate(("one", "two"), 50):
        write_recording(Path("new", f"{name}.mp4"), bouts_of(number, 160), 160, number)
    assert len(CALLS) == 9
    for line in CALLS:
        scivid(as_it_stands(line))
    for file, of in re.findall(r"^\| `(\w+)(\.\w+|_\w+\.csv|_pictures/)`", TEXT, flags=re.MULTILINE):
        assert Path(file + of).exists()
    labels = read_labels([Path("predictions.boris")], Videos.below(Path())).videos
    assert {of_video.video.source for of_video in labels} == {"new/one.mp4", "new/two.mp4"}
    assert pa_csv.read_csv("one_and_two.csv").column_names == ["video", "frame", "time", "dig", "rest"]
    assert "Classes and F1" in Path("report.html").read_text()
    (lines,) = [block for kind, block in BLOCKS if kind == "python"]
    exec(compile(lines.replace("videomae_b", "resize"), "own-data.md", "exec"), {})
    assert "('dig', 'rest') tensor([[" in capsys.readouterr().out
