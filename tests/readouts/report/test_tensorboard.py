"""Event files: every number of a curve under its name and step, from what runs recorded."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import CallError
from readouts.report.tensorboard import write_events
from readouts.results.run_folder import RunFolder
from readouts.results.table import add_run

MakeRow = Callable[..., dict[str, Any]]
CURVE = [
    {"step": 0, "readout": "linear", "train_loss": None, "whole": True, "AP": 0.25, "val/AP": 0.5},
    {"step": 10, "readout": "linear", "train_loss": 2.0, "whole": False, "AP": 0.75},
    {"step": 10, "readout": "attention", "train_loss": 9.0, "whole": False, "AP": 0.125},
]


def recorded(row: dict[str, Any], results: Path) -> None:
    add_run(results, row["run"], [row])
    folder = RunFolder.of(results, row).path
    folder.mkdir(parents=True)
    (folder / "history.jsonl").write_text("".join(json.dumps(point) + "\n" for point in CURVE))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_curve_is_read_back(make_row: MakeRow, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recorded(make_row(), tmp_path / "results")
    for _ in range(2):  # a second call adds nothing
        assert write_events(tmp_path / "events", results_dir=tmp_path / "results") == (1, [])
    events = EventAccumulator(str(tmp_path / "events" / "flyvsfly" / "toy-a" / "linear"))
    events.Reload()
    found = {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }
    assert found == {
        "minival/AP": [(0, 0.25), (10, 0.75)],
        "val/AP": [(0, 0.5)],
        "train_loss": [(10, 2.0)],
    }


def test_without_tensorboard_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(CallError, match=r"pip install tensorboard\."):
        write_events(tmp_path, results_dir=tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_curves_are_said(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(CallError, match="no curves"):
        write_events(tmp_path, results_dir=tmp_path)
