"""The page: what it says is in the table and the stores, and it needs nothing but itself."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from featcache.manifest import load_manifest
from readouts.features import open_task_splits
from readouts.report import comparison, write_report
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
