"""The shipped manifest has the benchmark's numbers; a wrong one is one message with file and place."""

from pathlib import Path

import pytest

from featcache.errors import CallError
from featcache.manifest import Pixels, Windows, load_manifest, shipped_manifest
from featcache.spec import ClipSpec, Starts


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


def test_the_five_tasks_of_the_benchmark() -> None:
    manifest = load_manifest()
    assert {
        name: (task.kind, task.splits["train"], task.splits["val"], task.splits["test"])
        for name, task in manifest.tasks.items()
    } == {
        "flyvsfly": ("classification", ("flyvsfly", "train"), ("flyvsfly", "val"), ("flyvsfly", "test")),
        "calms21": ("classification", ("calms21", "train"), ("calms21", "val"), ("calms21", "test")),
        "stir": ("tracking", ("movi", "train"), ("stir", "full_val"), ("stir", "test")),
        "typhoon": (
            "regression",
            ("digital_typhoon", "train"),
            ("digital_typhoon", "val"),
            ("digital_typhoon", "test"),
        ),
        "weatherbench2": (
            "forecast",
            ("weatherbench2", "train"),
            ("weatherbench2", "offline_dev"),
            ("weatherbench2", "test"),
        ),
    }
    assert all(task.published.rows for task in manifest.tasks.values())


def test_tracking_is_learned_on_windows_and_tested_on_whole_videos() -> None:
    manifest = load_manifest()
    task = manifest.task("stir")
    assert (task.clip_of("train").sampling, task.clip_of("train").n_frames) == ("clip", 16)
    for role in ("val", "test"):
        assert (task.clip_of(role).sampling, task.clip_of(role).n_frames) == ("linspace_clip", 16)
    assert task.starts == Starts(rule="window", span=16, n_starts=9)
    assert manifest.dataset("stir").split("test").n_clips == 60
    assert (manifest.dataset("movi").frame_size, manifest.dataset("stir").frame_size) == (
        (256, 256),
        (512, 512),
    )


def test_typhoons_are_12_hours_in_kelvin_of_one_of_8_starts() -> None:
    manifest = load_manifest()
    task, dataset = manifest.task("typhoon"), manifest.dataset("digital_typhoon")
    assert task.clip == task.clip_of("test") == ClipSpec(n_frames=12, height=256, width=256)
    assert task.starts == Starts(rule="random_clip", span=24, n_starts=8)
    assert dataset.pixels == Pixels(low=170.0, high=300.0)
    assert not dataset.pixels.are_bytes
    assert [dataset.split(name).n_clips for name in ("train", "val", "test")] == [696, 174, 219]


def test_weather_is_16_standardised_frames_whose_last_step_is_read() -> None:
    manifest = load_manifest()
    task, dataset = manifest.task("weatherbench2"), manifest.dataset("weatherbench2")
    assert (task.clip, task.tokens) == (ClipSpec(height=181, width=360), "last")
    assert dataset.variables == ("geopotential_500", "temperature_850", "specific_humidity_700")
    assert dataset.pixels.mean == pytest.approx((54088.7062, 274.389564, 0.00241466))
    assert dataset.pixels.std == pytest.approx((3358.64793, 15.6915163, 0.00253973))
    counts = {"train": 56_914, "online_dev": 78, "offline_dev": 730, "test": 732}
    assert {name: split.n_clips for name, split in dataset.splits.items()} == counts
    assert dataset.split("online_dev").windows == Windows(
        first="2018", last="2018", n_frames=32, step_hours=12, every_hours=108, offset_hours=6
    )
    assert dataset.split("train").windows == Windows(
        first="1979-01-02", last="2017", n_frames=32, step_hours=12, every_hours=6
    )


def test_what_a_task_leaves_out() -> None:
    fly = load_manifest().task("flyvsfly")
    assert (fly.starts, fly.evaluation_clip, fly.tokens) == (None, None, "all")
    assert fly.clip_of("test") == fly.clip
    assert load_manifest().dataset("flyvsfly").pixels.are_bytes


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


def test_an_overlay_adds_starts_windows_and_values(tmp_path: Path) -> None:
    path = overlay(
        tmp_path,
        """
datasets:
  weatherbench2:
    pixels: {mean: [0, 0, 0], std: [1, 2, 3.5]}
    splits: {test: {windows: {every_hours: 24, offset_hours: 0}}}
tasks:
  flyvsfly:
    augmentation: {scale: [1.0, 1.0]}
    starts: {rule: random_clip, span: 16, n_starts: 3}
    evaluation_clip: {sampling: middle_clip, stride: 2}
    tokens: last
""",
    )
    manifest = load_manifest(path)
    dataset, task = manifest.dataset("weatherbench2"), manifest.task("flyvsfly")
    assert dataset.pixels == Pixels(mean=(0.0, 0.0, 0.0), std=(1.0, 2.0, 3.5))
    assert dataset.split("test").windows == Windows(
        first="2019-12-24", last="2021-01-08", n_frames=32, step_hours=12, every_hours=24
    )
    assert task.starts == Starts(rule="random_clip", span=16, n_starts=3)
    assert task.clip_of("val") == ClipSpec(sampling="middle_clip", stride=2)
    assert task.clip_of("train") == load_manifest().task("flyvsfly").clip
    assert task.tokens == "last"


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
        ("datasets: {calms21: {pixels: {mean: [0.5]}}}", "datasets.calms21.pixels.mean", "1 numbers each"),
        (
            "datasets: {flyvsfly: {pixels: {mean: [1, 2], std: [1, 2]}}}",
            "datasets.flyvsfly.pixels.mean",
            "with `std` above 0, 3 numbers each",
        ),
        (
            "datasets: {digital_typhoon: {pixels: {low: 300}}}",
            "datasets.digital_typhoon.pixels.low",
            "below `high`; found 300",
        ),
        ("datasets: {calms21: {pixels: {range: 1}}}", "datasets.calms21.pixels", "unknown key 'range'"),
        *(
            (
                f"datasets: {{weatherbench2: {{splits: {{test: {{windows: {{{key}: 0}}}}}}}}}}",
                f"weatherbench2.splits.test.windows.{key}",
                "at least 1; found 0",
            )
            for key in ("n_frames", "step_hours", "every_hours")
        ),
        (
            "datasets: {weatherbench2: {splits: {test: {windows: {first: 2018}}}}}",
            "weatherbench2.splits.test.windows.first",
            "text; found 2018",
        ),
        ("tasks: {stir: {starts: {rule: windows}}}", "tasks.stir.starts.rule", "one of random_clip, window"),
        ("tasks: {calms21: {starts: {rule: window}}}", "tasks.calms21.starts", "no `augmentation` beside it"),
        (
            "tasks: {typhoon: {clip: {stride: 2}}}",
            "tasks.typhoon.clip",
            "with stride 1: targets are those of",
        ),
        ("tasks: {typhoon: {starts: {span: 0}}}", "tasks.typhoon.starts.span", "at least 1"),
        (
            "datasets: {weatherbench2: {splits: {test: {windows: {offset_hours: -6}}}}}",
            "datasets.weatherbench2.splits.test.windows.offset_hours",
            "at least 0",
        ),
        ("tasks: {stir: {starts: {n_start: 3}}}", "tasks.stir.starts", "did you mean 'n_starts'"),
        (
            "tasks: {stir: {evaluation_clip: {sampling: linspace}}}",
            "tasks.stir.evaluation_clip.sampling",
            "one of clip, middle_clip, linspace_clip",
        ),
        (
            "tasks: {stir: {evaluation_clip: {n_frames: 0}}}",
            "tasks.stir.evaluation_clip.n_frames",
            "at least 1",
        ),
        ("tasks: {weatherbench2: {tokens: first}}", "tasks.weatherbench2.tokens", "one of all, last"),
        ("tasks: {stir: {kind: classification}}", "tasks.stir.kind", "data sets with `classes`"),
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
