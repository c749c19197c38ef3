"""What the shipped manifest says, against the benchmark's own numbers."""

import pytest

from featcache.manifest.loading import load_manifest
from featcache.manifest.values import Pixels, Windows, is_date
from featcache.spec import ClipSpec, Starts


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


@pytest.mark.parametrize("text", ["2017", "2017-12", "2017-12-24", "2020-02-29", "2017-12-24T18"])
def test_dates_of_windows(text: str) -> None:
    assert is_date(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2017-13",
        "2018-13-45",
        "2019-02-29",
        "2017-12-24T24",
        "soon",
        "now",
        "today",
        "NaT",
        "20",
        "2017 ",
    ],
)
def test_a_bad_date_is_none(text: str) -> None:
    assert not is_date(text)
