"""What follows from a job without reading anything."""

from pathlib import Path

import pytest
import torch

from featcache.backbones import load_backbone
from featcache.errors import CallError
from featcache.job import Extraction, feature_spec, plan_extraction, split_roles, store_attributes
from featcache.manifest import load_manifest
from featcache.spec import Layer


def job(role: str = "train", n_views: int = 1) -> Extraction:
    return plan_extraction(
        load_manifest(),
        task="calms21",
        role=role,
        backbone=load_backbone("videomae_random"),
        layers=(Layer(1),),
        n_views=n_views,
        seed=0,
        dtype=torch.float32,
    )


def test_the_stores_shape_follows_from_the_backbones_grid() -> None:
    spec = feature_spec(job(n_views=3), n_clips=1000)
    # 8 steps x 7 x 7 tokens x 192 channels
    assert spec.array_shape == (1000, 3, 8, 7, 7, 192)
    # 2^28 bytes / (3 views x 150,528 bytes) = 594.4, and 576 is the multiple of 32 below
    assert spec.clips_per_shard == 576


def test_what_a_store_says_of_itself() -> None:
    attributes = store_attributes(job(n_views=3), "targets-0.zarr")
    assert attributes["exactness"] == "3 frozen views"
    assert attributes["control"] == "random weights"
    assert (attributes["upsampling"], attributes["readout_steps"]) == ("linear", 16)
    assert store_attributes(job("test"), None)["exactness"] == "exact"


def test_splits_by_name() -> None:
    manifest = load_manifest()
    assert split_roles(manifest, "calms21", "all") == ["train", "val", "test"]
    assert split_roles(manifest, "calms21", "val, test") == ["val", "test"]
    with pytest.raises(CallError, match="no split of task calms21 is called 'dev'"):
        split_roles(manifest, "calms21", "train,dev")


def test_views_of_a_task_without_augmentation_are_refused(tmp_path: Path) -> None:
    overlay = tmp_path / "m.yaml"
    overlay.write_text("tasks: {calms21: {augmentation: {scale: [1.0, 1.0], blur: 0.0, flip: 0.0}}}")
    with pytest.raises(CallError, match="views are all alike"):
        plan_extraction(
            load_manifest(overlay),
            task="calms21",
            role="train",
            backbone=load_backbone("resize"),
            layers=(Layer(0),),
            n_views=4,
            seed=0,
            dtype=torch.float32,
        )
