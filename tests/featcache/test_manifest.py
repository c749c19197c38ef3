"""The shipped manifest has the benchmark's numbers; a wrong one is one message with file and place."""

from pathlib import Path

import pytest

from featcache.errors import CallError
from featcache.manifest import load_manifest, shipped_manifest


def overlay(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_the_benchmarks_own_numbers() -> None:
    manifest = load_manifest()
    fly, mouse = manifest.dataset("flyvsfly"), manifest.dataset("calms21")
    assert (fly.split("train").n_shards, fly.split("train").n_clips) == (100, 1_067_008)
    assert [mouse.split(s).n_clips for s in ("train", "val", "test")] == [26_970, 76_585, 262_107]
    assert fly.classes[-1] == fly.background == "not_interacting"
    assert [fly.classes.index(name) for name in fly.rare] == [1, 2]
    assert (fly.channels, mouse.channels) == (3, 1)
    assert sum(fly.split("train").label_counts) == 6827 + 23497 + 1950 + 18239 + 4388 + 329372 + 687413
    task = manifest.task("calms21")
    assert (task.augmentation.scale, task.augmentation.blur, task.augmentation.flip) == ((1.0, 2.0), 0.5, 0.5)
    assert manifest.task("flyvsfly").augmentation.scale == (1.0, 1.4)
    assert task.source_of("val") == ("calms21", "val")


def test_file_names_are_the_buckets() -> None:
    files = load_manifest().dataset("calms21").split("train").files
    assert files.format(shard=7, n_shards=1024) == (
        "full/calms21_slim/calms21_train_split_ids_shuffle_scale05_downsample16.array_record-00007-of-01024"
    )


def test_an_overlay_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = overlay(tmp_path, "datasets: {flyvsfly: {version: mine, splits: {val: {n_shards: 3}}}}")
    changed, shipped = load_manifest(path).dataset("flyvsfly"), load_manifest().dataset("flyvsfly")
    assert (changed.version, changed.split("val").n_shards) == ("mine", 3)
    assert changed.split("train") == shipped.split("train")
    assert changed.split("val").files == shipped.split("val").files


def test_an_overlay_adds_a_task_of_ones_own(tmp_path: Path) -> None:
    path = overlay(
        tmp_path,
        """
datasets:
  cages:
    {title: Cages, source: here, licence: none, citation: none, version: "1", reader: video_file,
     classes: [a, b], splits: {train: {files: "*.mp4"}}}
tasks:
  cages: {title: Cages, kind: classification, splits: {train: cages/train}}
""",
    )
    task = load_manifest(path).task("cages")
    assert task.clip.n_frames == 16
    assert task.augmentation.is_identity


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        (
            "datasets: {flyvsfly: {splits: {train: {n_shards: many}}}}",
            "datasets.flyvsfly.splits.train.n_shards",
            "whole",
        ),
        (
            "datasets: {flyvsfly: {splits: {train: {n_shards: 0}}}}",
            "datasets.flyvsfly.splits.train.n_shards",
            "at least 1",
        ),
        ("datasets: {flyvsfly: {spltis: {}}}", "datasets.flyvsfly", "did you mean 'splits'"),
        ("datasets: {flyvsfly: {reader: tfrecord}}", "datasets.flyvsfly.reader", "one of sequence_example"),
        ("datasets: {flyvsfly: {background: nothing}}", "datasets.flyvsfly.classes", "'nothing'"),
        ("datasets: {flyvsfly: {channels: 4}}", "datasets.flyvsfly.channels", "1 .grey. or 3"),
        ("datasets: {flyvsfly: {splits: {train: {label_counts: [1, 2]}}}}", "label_counts", "7 numbers"),
        ("datasets: {new: {title: New}}", "datasets.new.source", "text"),
        ("tasks: {flyvsfly: {splits: {train: fly/train}}}", "tasks.flyvsfly.splits.train", "flyvsfly/train"),
        (
            "tasks: {flyvsfly: {augmentation: {scale: [0.2, 1]}}}",
            "tasks.flyvsfly.augmentation.scale",
            "at least 1",
        ),
        ("tasks: {flyvsfly: {augmentation: {flip: 2}}}", "tasks.flyvsfly.augmentation.flip", "0 to 1"),
        ("tasks: {flyvsfly: {published: {rows: [{backbone: 1}]}}}", r"rows\[0\].backbone", "text"),
        ("format: 2", "format", "1, the only format"),
        ("datasets: 3", "datasets", "a mapping"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, text: str, place: str, expected: str) -> None:
    with pytest.raises(CallError, match=rf"mine.yaml, at .*{place}.*{expected}"):
        load_manifest(overlay(tmp_path, text))


def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="cannot be read"):
        load_manifest(tmp_path / "absent.yaml")
    with pytest.raises(CallError, match="is not YAML"):
        load_manifest(overlay(tmp_path, "[1"))
    with pytest.raises(CallError, match="expected datasets and tasks"):
        load_manifest(overlay(tmp_path, "- 1"))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        CallError, match=r"no task is called 'flyvfly': known are flyvsfly, .*Did you mean 'flyvsfly'"
    ):
        load_manifest().task("flyvfly")
    with pytest.raises(CallError, match="no split of flyvsfly is called 'dev'"):
        load_manifest().dataset("flyvsfly").split("dev")


def test_the_shipped_manifest_is_found_in_a_checkout() -> None:
    assert shipped_manifest().name == "data_manifest.yaml"
