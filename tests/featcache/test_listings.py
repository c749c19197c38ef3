"""Rows of `scivid list` and `scivid data status`."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from featcache.listings import backbone_rows, data_rows, store_rows, task_rows
from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore


def test_a_backbone_says_what_it_costs_and_allows() -> None:
    rows = {row["backbone"]: row for row in backbone_rows(None, load_manifest())}
    base = rows["videomae_b"]
    # 8 steps x 196 tokens x 768 channels x 2 bytes
    assert (base["MB/clip"], base["grid t,h,w,c"], base["layer"]) == ("2.41", "8 14 14 768", "12_normed")
    assert (base["bfloat16 off"], rows["resize"]["bfloat16 off"]) == ("0.9%", None)
    assert "non-commercial" in str(base["licence"])
    assert rows["resize"]["weights"] == "none needed"


def test_a_backbone_says_what_was_measured_of_it_and_whether_the_paper_has_it() -> None:
    rows = {str(row["backbone"]): row for row in backbone_rows(None, load_manifest())}
    in_paper = {name for name, row in rows.items() if row["paper"]}
    assert in_paper == {"resize", "dinov2_g", "videomaev2_g", "vjepa_h", "videoprism_g", "4ds_l", "4ds_e"}
    # The table of LOG.md, in milliseconds a clip.
    log = (Path(__file__).resolve().parents[2] / "LOG.md").read_text()
    told = dict(re.findall(r"^\| (\w+) \| bfloat16 \| [\d,-]+ \| ([\d,]+) \|", log, flags=re.MULTILINE))
    of = {name: str(row["clips/s, 2 cores"]) for name, row in rows.items() if row["clips/s, 2 cores"]}
    assert of == {name: f"{1000 / int(ms.replace(',', '')):.2f}" for name, ms in told.items()}
    assert (rows["vjepa21_b"]["bfloat16 off"], rows["vjepa21_b"]["paper"]) == ("0.6%", None)


def test_a_task_names_its_data() -> None:
    rows = {row["task"]: row for row in task_rows(load_manifest())}
    assert rows["calms21"]["train"] == "calms21/train"


def test_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    rows, lines = data_rows(load_manifest(), tmp_path)
    assert [row["data"] for row in rows][:3] == ["flyvsfly/train", "flyvsfly/val", "flyvsfly/test"]
    assert rows[0]["files"] == "0 of 100"
    assert rows[0]["state"] == "missing"
    # Below the table, on a line of its own that can be copied.
    assert lines[0].splitlines()[1].startswith("  mkdir -p ")
    assert lines[0].startswith("flyvsfly/train has 0 of its 100 files")
    assert "gcloud storage cp 'gs://scivid/full/fly_vs_fly/train_fly_" in lines[0]
    assert store_rows(tmp_path) == []


def test_stores_are_told_apart_and_a_damaged_one_is_listed(
    make_split: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    for dtype in ("float16", "int8"):
        make_split("val", np.ones((3, 1, 1, 1, 1, 4)), np.zeros((3, 7), int), dtype=dtype)
    rows = store_rows(tmp_path / "features")
    assert sorted(str(row["tokens"]) for row in rows) == ["float16", "int8"]
    damaged = Path(str(rows[0]["store"]))
    (damaged / "zarr.json").write_text("{")
    (row,) = [row for row in store_rows(tmp_path / "features") if row["store"] == damaged]
    assert row["complete"] == "damaged: `scivid validate` says how"
