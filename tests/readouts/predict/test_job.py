"""Many videos: what is written of them, what a kill leaves, what a broken one costs."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli import app
from featcache.data.labels.reading import read_labels
from featcache.data.labels.videos import Videos
from featcache.errors import CallError, DataError
from featcache.system.console import silent
from readouts.predict.frames import WindowScores
from readouts.predict.job import Wanted, predict
from readouts.predict.kinds.base import Asked
from readouts.predict.kinds.labels import Labels
from readouts.predict.kinds.values import Values
from readouts.predict.videos import Watcher
from tests.own_recordings import RATE, bouts_of
from tests.readouts.own_lab import Lab

HALF = np.array([0.5, 0.5])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def videos(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    names = ("mouse3_a.mp4", "mouse3_b.mp4", "mouse2_a.mp4")
    return [Path(shutil.copy2(lab.videos / name, "new")).relative_to(".") for name in names]


def test_bouts_are_those_that_one_sees(lab: Lab, videos: list[Path]) -> None:
    outs = [Path("out/t.parquet"), Path("out/t.boris"), Path("out/t.annot")]
    found = predict(lab.watcher(every=2), videos, Wanted(outs=outs, kind=lab.labels(HALF)), silent)
    table = pq.read_table("out/t.parquet")
    assert table.column_names == ["video", "frame", "time", "dig", "rest"]
    assert table["frame"].to_pylist() == 3 * list(range(160))
    assert table["time"][159].as_py() == pytest.approx(159 / RATE)
    of_videos = read_labels([Path("out/t.boris")], Videos.below(Path())).videos
    (labels,) = (labels for labels in of_videos if labels.video.source == "new/mouse2_a.mp4")
    truth = bouts_of(2, 160)
    assert [b.label for b in labels.bouts] == [name for name, *_ in truth]
    for bout, (_, first, stop) in zip(labels.bouts, truth, strict=True):
        assert abs(bout.first - first) <= 10
        assert abs(bout.stop - stop) <= 10
    assert sorted(p.name for p in found.written) == [
        "t.boris", "t.parquet", "t_bouts.csv", "t_mouse2_a.annot", "t_mouse3_a.annot", "t_mouse3_b.annot",
        "t_pictures", "t_summary.csv",
    ]  # fmt: skip
    assert len(found.rows) == 6
    assert len(list(Path("out/t_pictures").iterdir())) == 3
    assert not Path("out/t.parquet.parts").exists()


def test_a_killed_one_goes_on_and_writes_the_same(
    lab: Lab, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {name: Wanted(outs=[Path(name, "t.csv")], kind=lab.labels(HALF), smooth=0.4) for name in "ab"}
    predict(lab.watcher(), videos, wanted["a"], silent)
    watcher, seen, scores = lab.watcher(), list[str](), Labels.windows

    def killed(self: Labels, watcher: Watcher, asked: Asked) -> Iterator[WindowScores]:
        seen.append(asked.video.name)
        for n, window in enumerate(scores(self, watcher, asked)):
            if len(seen) == 2 and n == 3:
                raise KeyboardInterrupt
            yield window

    monkeypatch.setattr(Labels, "windows", killed)
    with pytest.raises(KeyboardInterrupt):
        predict(watcher, videos, wanted["b"], silent)
    assert [path.name for path in Path("b").iterdir()] == ["t.csv.parts"]
    seen.append("again")
    predict(watcher, videos, wanted["b"], silent)
    assert seen == ["mouse3_a.mp4", "mouse3_b.mp4", "again", "mouse3_b.mp4", "mouse2_a.mp4"]
    assert contents(Path("a")) == contents(Path("b"))


def test_a_broken_video_costs_itself(lab: Lab, videos: list[Path]) -> None:
    videos[1].write_bytes(videos[1].read_bytes()[:3000])
    wanted = Wanted(outs=[Path("t.parquet")], kind=lab.labels(HALF))
    found = predict(lab.watcher(), videos, wanted, silent)
    assert len(found.broken) == 1
    assert "mouse3_b.mp4" in found.broken[0]
    assert set(pq.read_table("t.parquet")["video"].to_pylist()) == {"new/mouse3_a.mp4", "new/mouse2_a.mp4"}
    assert len(list(Path("t.parquet.parts").iterdir())) == 2, "kept, for when it was mended"
    many = [Path(shutil.copy2(videos[0], f"new/{number}.mp4")) for number in range(9)]
    found = predict(
        lab.watcher(), [*many[:4], videos[1], *many[4:]], replace(wanted, outs=[Path("m.csv")]), silent
    )
    assert len(found.broken) == 1 and "mouse3_b.mp4" in found.broken[0]
    assert {row["video"] for row in found.rows} == {str(path) for path in many}
    with pytest.raises(DataError, match="no video can be read"):
        predict(lab.watcher(), videos[1:2], wanted, silent)


def test_another_rate_is_said(lab: Lab, videos: list[Path]) -> None:
    watcher, wanted = lab.watcher(), Wanted(outs=[Path("t.csv")], kind=lab.labels(HALF))
    assert watcher.run.gives["rate"] == float(RATE)
    assert not predict(watcher, videos[:1], wanted, silent).notes
    watcher.run.gives = {**watcher.run.gives, "rate": 30.0}
    (note,) = predict(watcher, videos[:1], wanted, silent).notes
    assert "mouse3_a.mp4: 12.5 frames a second, and the run learned from 30" in note


def test_values_have_a_table_and_no_bouts(lab: Lab, videos: list[Path]) -> None:
    watcher = lab.watcher()
    watcher.run.gives = {**watcher.run.gives, "are_labels": False, "offset": 1000.0}
    wanted = Wanted(outs=[Path("t.parquet")], kind=Values.of(watcher.run))
    rows = predict(watcher, videos[:1], wanted, silent).rows
    table = pq.read_table("t.parquet")
    for row, name in zip(rows, ("dig", "rest"), strict=True):
        values = table[name].to_numpy()
        assert (row["video"], row["value"]) == (str(videos[0]), name)
        assert [row[key] for key in ("mean", "min", "max")] == pytest.approx(
            [values.mean(), values.min(), values.max()], rel=1e-4
        )
    assert abs(pq.read_table("t.parquet")["dig"][0].as_py() - 1000) < 100
    assert not Path("t_bouts.csv").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"outs": [Path("t.xlsx")]},
            r"scores of classes: name a file that ends in one of .*csv, .boris",
        ),
        ({"kind": Values(names=("a",), of_frames=False)}, "predicts values, which make no bouts"),
        ({"smooth": -1.0}, "seconds, 0 or more"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(change: dict[str, object], message: str, lab: Lab) -> None:
    with pytest.raises(CallError, match=message):
        Wanted(**{"outs": [Path("t.boris")], "kind": lab.labels(HALF), **change})


def test_the_command_ends_with_1_where_one_is_broken(lab: Lab, tmp_path: Path) -> None:
    whole = (lab.videos / "mouse3_a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole)
    (tmp_path / "b.mp4").write_bytes(whole[:3000])
    run, out = ["--run", str(lab.folder.path)], ["--out", str(tmp_path / "out.csv")]
    result = CliRunner().invoke(app, ["predict", str(tmp_path), *run, *out])
    assert result.exit_code == 1
    assert "left out:" in result.output
    assert "b.mp4" in result.output
    assert set(pa_csv.read_csv(tmp_path / "out.csv")["video"].to_pylist()) == {str(tmp_path / "a.mp4")}
    for wrong in ([], ["--store", str(tmp_path), str(tmp_path)]):
        assert CliRunner().invoke(app, ["predict", *wrong, *run, *out]).exit_code == 2
