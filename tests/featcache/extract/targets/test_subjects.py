"""Whose a clip is: a number of each subject, in files as in the plan, and no name."""

from dataclasses import replace
from pathlib import Path

import torch

from featcache.backbones import load_backbone
from featcache.clips import Clip, ClipIndex
from featcache.data.readers import open_reader
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.targets.builders import planned_targets, targets_of, write_split_targets
from featcache.manifest import load_manifest
from featcache.store.targets import Targets, open_targets

SOURCES = ("b.mp4", "a.mp4", "m1", "c.mp4", "b.mp4")


def written(folder: Path, subjects: dict[str, str], data: Path) -> tuple[Extraction, Targets]:
    backbone = load_backbone("resize", None)
    job = plan_extraction(
        load_manifest(), task="flyvsfly", role="val", backbone=backbone, layers=backbone.info.default_layers,
        n_views=1, seed=0, dtype=torch.float32,
    )  # fmt: skip
    job = replace(job, dataset=replace(job.dataset, subjects=subjects))
    index = ClipIndex.from_clips(
        Clip(id=str(i), source=source, record=i, n_source=24, digest="0" * 16)
        for i, source in enumerate(SOURCES)
    )
    found = targets_of(job, index, open_reader(job.dataset, job.split, data))
    assert found is not None
    return job, open_targets(folder / write_split_targets(found, index, folder, "val", lambda *_: None))


def test_clips_of_one_subject_have_one_number(tmp_path: Path, tiny_data: Path) -> None:
    subjects = {"a.mp4": "m1", "b.mp4": "m1", "of_train.mp4": "m2"}
    job, targets = written(tmp_path, subjects, tiny_data)
    # A video that nobody names is its own, also where it is called as a subject.
    assert targets.read("subject").tolist() == [0, 0, 1, 2, 0]
    planned = planned_targets(job, len(SOURCES))
    assert {name: array.shape for name, array in planned.items()} == {
        name: targets.shape(name) for name in ("labels", "subject")
    }


def test_another_name_or_a_video_of_another_split_changes_nothing(tmp_path: Path, tiny_data: Path) -> None:
    (_, first), (_, second), (_, other) = (
        written(tmp_path, subjects, tiny_data)
        for subjects in (
            {"a.mp4": "m1", "b.mp4": "m1"},
            {"a.mp4": "Ann", "b.mp4": "Ann", "of_train.mp4": "Bob"},
            {"a.mp4": "m1", "b.mp4": "m2"},
        )
    )
    assert first.path == second.path != other.path
    assert b"m1" not in (first.path / "zarr.json").read_bytes()


def test_without_subjects_targets_are_as_before(tmp_path: Path, tiny_data: Path) -> None:
    _, targets = written(tmp_path, {}, tiny_data)
    assert "subject" not in targets
