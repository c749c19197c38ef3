"""Rows of `scivid list` and `scivid data status`."""

from pathlib import Path

from featcache.listings import backbone_rows, data_rows, store_rows, task_rows
from featcache.manifest import load_manifest


def test_a_backbone_says_what_it_costs_and_allows() -> None:
    rows = {row["backbone"]: row for row in backbone_rows(None)}
    base = rows["videomae_b"]
    # 8 steps x 196 tokens x 768 channels x 2 bytes
    assert (base["MB/clip"], base["grid t,h,w,c"], base["layer"]) == ("2.41", "8 14 14 768", "12_normed")
    assert "non-commercial" in str(base["licence"])
    assert rows["resize"]["weights"] == "none needed"


def test_a_task_names_its_data() -> None:
    rows = {row["task"]: row for row in task_rows(load_manifest())}
    assert rows["calms21"]["train"] == "calms21/train"


def test_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    rows = data_rows(load_manifest(), tmp_path)
    assert [row["data"] for row in rows][:3] == ["flyvsfly/train", "flyvsfly/val", "flyvsfly/test"]
    assert rows[0]["files"] == "0 of 100"
    assert "gs://scivid/full/fly_vs_fly" in str(rows[0]["state"])
    assert store_rows(tmp_path) == []
