"""The page: what it says is in the table and the stores, and it needs nothing but itself."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.manifest import load_manifest
from featcache.store import FeatureStore, find_stores
from readouts.features import open_task_splits
from readouts.report import comparison, write_report
from readouts.results import add_run, load_results
from readouts.tasks import load_task
from readouts.train import configure, train


@pytest.fixture
def folders(make_split, tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(1)
    for role in ("train", "val"):
        labels = np.eye(7, dtype=int)[rng.integers(7, size=14)]
        make_split(role, rng.normal(size=(14, 1, 2, 2, 2, 8)), labels, backbone_title="a <toy>")
    cache, results = tmp_path / "features", tmp_path / "results"
    task = load_task("flyvsfly", load_manifest())
    splits = open_task_splits(cache, "flyvsfly", "toy", roles=("train", "val"))
    run = configure(task, splits, settings=["steps=4", "minival_every=2", "width=16"])
    train(run, results_dir=results, device=torch.device("cpu"), command="scivid train-readout --seed 0")
    return results, cache


def test_the_page_is_whole_and_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    results, cache = folders
    page = tmp_path / "deep" / "report.html"
    write_report(page, results_dir=results, cache_dir=cache, manifest=load_manifest())
    text = page.read_text()
    assert "Fly behaviour" in text
    assert "a &lt;toy&gt;" in text  # escaped
    assert "control: label frequency" in text
    assert "0.894" in text  # 4DS-e, published
    assert "scivid train-readout --seed 0" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)


def test_ours_controls_and_published_stand_in_one_table(folders: tuple[Path, Path]) -> None:
    results, cache = folders
    ((title, rows),) = comparison(results, cache, load_manifest())
    assert title == "Fly behaviour: mean_AP"
    assert [row["backbone"] for row in rows[:3]] == ["toy", "toy", "control: label frequency"]
    assert {"backbone": "Resize (published)", "readout": "attention", "test": "0.095"} in rows


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="run `scivid demo`"):
        write_report(tmp_path / "r.html", results_dir=tmp_path, cache_dir=tmp_path, manifest=load_manifest())


def page_of(folders: tuple[Path, Path], tmp_path: Path) -> str:
    results, cache = folders
    write_report(tmp_path / "r.html", results_dir=results, cache_dir=cache, manifest=load_manifest())
    return (tmp_path / "r.html").read_text()


def test_a_row_of_an_unknown_task_does_not_hide_the_others(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    row = load_results(folders[0])[0]
    add_run(folders[0], "other", [{**row, "run": "other", "task": "moths", "task_spec": None, "val": 0.125}])
    text = page_of(folders, tmp_path)
    assert "Fly behaviour" in text
    assert "control: label frequency" in text
    assert re.search(r"Scores only: [^<]*moths", text)
    assert "0.125" in text
    assert [title for title, _ in comparison(*folders, load_manifest())][1] == "moths: mean_AP"


def test_a_broken_store_is_named_and_the_rest_is_shown(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (store,) = find_stores(folders[1], "flyvsfly", "val")
    shard = store.shard_path(store.spec.layers[0], 0)
    shard.write_bytes(shard.read_bytes()[:-1])
    text = page_of(folders, tmp_path)
    assert re.search(r"Not shown: [^<]*flyvsfly/val/toy", text)
    assert "Fly behaviour" in text
    assert "flyvsfly / train / toy" in text


def test_a_task_from_a_file_is_reported_by_the_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from featcache.manifest import load_manifest\n"
        "from readouts.tasks.flyvsfly import task\n"
        "TASK = replace(task(load_manifest()), name='own')\n"
    )
    row = load_results(folders[0])[0]
    add_run(folders[0], "own", [{**row, "run": "own", "task": "own", "task_spec": f"{file}:TASK"}])
    assert "Scores only" not in page_of(folders, tmp_path)


def test_clips_of_a_task_without_labels_are_left_out(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureStore, "load_targets", lambda store: {"depth": np.zeros((14, 2))})
    text = page_of(folders, tmp_path)
    assert "Fly behaviour" in text
    assert "predicted and true labels" not in text
