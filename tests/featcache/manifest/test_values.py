"""What the shipped manifest says, against the benchmark's own numbers."""

import pytest

from featcache.manifest.loading import load_manifest
from featcache.manifest.values import Augmentation, Pixels, Windows, is_date
from featcache.spec import ClipSpec, Starts

PUBLISHED = {
    "flyvsfly": {
        ("4DS-e", "attention"): 0.894,
        ("4DS-e", "linear"): 0.568,
        ("DINOv2-g", "attention"): 0.866,
        ("VideoMAEv2-g", "attention"): 0.887,
        ("V-JEPA-H", "attention"): 0.901,
        ("VideoPrism-g", "attention"): 0.839,
        ("4DS-B-dist-e", "attention"): 0.843,
        ("Resize", "attention"): 0.095,
    },
    "calms21": {
        ("4DS-e", "attention"): 0.817,
        ("4DS-e", "linear"): 0.525,
        ("DINOv2-g", "attention"): 0.866,
        ("VideoMAEv2-g", "attention"): 0.862,
        ("V-JEPA-H", "attention"): 0.828,
        ("VideoPrism-g", "attention"): 0.855,
        ("Resize", "attention"): 0.122,
    },
    "stir": {
        ("4DS-e", "tracking"): 0.513,
        ("DINOv2-g", "tracking"): 0.215,
        ("VideoMAEv2-g", "tracking"): 0.344,
        ("V-JEPA-H", "tracking"): 0.443,
        ("VideoPrism-g", "tracking"): 0.351,
        ("4DS-B-dist-e", "tracking"): 0.441,
        ("Resize", "tracking"): 0.280,
    },
    "typhoon": {
        ("4DS-e", "attention"): 4.23,
        ("4DS-e", "linear"): 7.45,
        ("DINOv2-g", "attention"): 6.33,
        ("VideoMAEv2-g", "attention"): 4.53,
        ("V-JEPA-H", "attention"): 4.16,
        ("VideoPrism-g", "attention"): 5.01,
        ("Resize", "attention"): 10.0,
    },
    "weatherbench2": {
        ("4DS-e", "dpt"): 601,
        ("DINOv2-g", "dpt"): 627,
        ("VideoMAEv2-g", "dpt"): 594,
        ("V-JEPA-H", "dpt"): 619,
        ("VideoPrism-g", "dpt"): 635,
        ("4DS-B-dist-e", "dpt"): 608,
        ("Resize", "dpt"): 642,
    },
}
"""PROTOCOL: task -> (backbone, readout) -> the score that a report prints beside ours."""

FLY, MOUSE = (
    "full/fly_vs_fly/{}_fly_split_ids_shuffle",
    "full/calms21_slim/calms21_{}_split_ids_shuffle_scale05",
)
TYPHOON = "full/digital_typhoon_slim/{}_imsize_256_max_frames_32"
RECORDS = {
    ("flyvsfly", "train"): (FLY.format("train"), 100, 1_067_008),
    ("flyvsfly", "val"): (FLY.format("val"), 100, None),
    ("flyvsfly", "test"): (FLY.format("test"), 100, None),
    ("calms21", "train"): (f"{MOUSE.format('train')}_downsample16", 1024, 26_970),
    ("calms21", "val"): (MOUSE.format("val"), 1024, 76_585),
    ("calms21", "test"): (MOUSE.format("test"), 1024, 262_107),
    ("movi", "train"): ("full/movi/train", 100, None),
    ("stir", "short_val"): ("full/stir/short_val_stir", 100, None),
    ("stir", "full_val"): ("full/stir/full_val_stir", 100, None),
    ("stir", "test"): ("full/stir/test_stir", 100, 60),
    ("digital_typhoon", "train"): (TYPHOON.format("train"), 50, 696),
    ("digital_typhoon", "val"): (TYPHOON.format("val"), 50, 174),
    ("digital_typhoon", "test"): (TYPHOON.format("test"), 50, 219),
}
"""(data set, split) -> its record files before the shard's number, how many of them, how many clips."""

LAID_OUT = {
    "flyvsfly": (3, (144, 144), {"image": "image/encoded", "labels": "clip/label/index"}),
    "calms21": (1, (285, 512), {"image": "image/encoded", "labels": "clip/label/index"}),
    "movi": (
        3,
        (256, 256),
        {"image": "image/encoded", "tracks": "tracks/2d", "visibility": "tracks/visibility"},
    ),
    "stir": (
        3,
        (512, 512),
        {
            "image": "image/encoded",
            "start_x": "startir/object/keypoint/x",
            "start_y": "startir/object/keypoint/y",
            "end_x": "endir/object/keypoint/x",
            "end_y": "endir/object/keypoint/y",
            "video": "vid_idx",
            "duration": "duration",
        },
    ),
    "digital_typhoon": (
        1,
        (256, 256),
        {"values": "image/infrared", "series": "pressure", "sequence": "key_"},
    ),
    "weatherbench2": (3, (181, 360), {}),
}
"""Data set -> channels, rows and columns of a frame, the names of what a record holds."""

WINDOWS = {
    "train": Windows(first="1979-01-02", last="2017", n_frames=32, step_hours=12, every_hours=6),
    "online_dev": Windows(
        first="2018", last="2018", n_frames=32, step_hours=12, every_hours=108, offset_hours=6
    ),
    "offline_dev": Windows(
        first="2017-12-24", last="2019-01-08", n_frames=32, step_hours=12, every_hours=12, offset_hours=18
    ),
    "test": Windows(
        first="2019-12-24", last="2021-01-08", n_frames=32, step_hours=12, every_hours=12, offset_hours=12
    ),
}

SIXTEEN = ClipSpec(n_frames=16, stride=1, sampling="clip", height=224, width=224)
SHOWN = {
    "flyvsfly": (SIXTEEN, SIXTEEN, None, Augmentation(scale=(1.0, 1.4), blur=0.0, flip=0.0), "all"),
    "calms21": (SIXTEEN, SIXTEEN, None, Augmentation(scale=(1.0, 2.0), blur=0.5, flip=0.5), "all"),
    "stir": (
        SIXTEEN,
        ClipSpec(n_frames=16, stride=1, sampling="linspace_clip", height=224, width=224),
        Starts(rule="window", span=16, n_starts=9),
        Augmentation(),
        "all",
    ),
    "typhoon": (
        ClipSpec(n_frames=12, stride=1, sampling="clip", height=256, width=256),
        ClipSpec(n_frames=12, stride=1, sampling="clip", height=256, width=256),
        Starts(rule="random_clip", span=24, n_starts=8),
        Augmentation(),
        "all",
    ),
    "weatherbench2": (
        ClipSpec(n_frames=16, stride=1, sampling="clip", height=181, width=360),
        ClipSpec(n_frames=16, stride=1, sampling="clip", height=181, width=360),
        None,
        Augmentation(),
        "last",
    ),
}
"""Task -> clips of training, clips of val and test, starts, augmentation, tokens that are kept."""


ELSEWHERE = {
    ("flyvsfly", "VideoPrism-g", "", "frozen", "unsaid"): 0.925,
    ("flyvsfly", "VideoPrism-g", "", "domain", "unsaid"): 0.920,
    ("calms21", "V-JEPA-H", "", "frozen", "unsaid"): 0.924,
    ("calms21", "VideoPrism-g", "", "domain", "unsaid"): 0.915,
    ("stir", "4DS-e", "tracking", "frozen", "val"): 0.578,
    ("stir", "4DS-e", "tracking", "fine-tuned", "test"): 0.612,
    ("stir", "4DS-e", "tracking", "fine-tuned", "val"): 0.692,
    ("stir", "MFT", "", "domain", "test"): 0.685,
    ("stir", "MFT", "", "domain", "val"): 0.776,
    ("typhoon", "4DS-L", "", "frozen", "val"): 3.88,
    ("typhoon", "Kitamoto et al.", "", "domain", "unsaid"): 11.71,
}
"""Task, model, readout, what was trained, split -> the number of the comparison with models of the domain."""


def test_every_published_number_is_the_papers() -> None:
    tasks = load_manifest().tasks
    summary = {row.source for row in tasks["typhoon"].published.rows} - {""}
    assert summary == {"SciVid, ICCV 2025, comparison with models of the domain"}
    rows = [(name, row) for name, task in tasks.items() for row in task.published.rows]
    first = [(name, row) for name, row in rows if row.source not in summary]
    assert {(row.kind, row.split, row.protocol) for _, row in first} == {("frozen", "test", "")}
    assert {row.backbone for _, row in first if row.source} == {"4DS-B-dist-e"}  # of the repository
    found: dict[str, dict[tuple[str, str], float]] = {}
    for name, row in first:
        found.setdefault(name, {})[row.backbone, row.readout] = row.value
    assert found == PUBLISHED
    assert {
        (name, row.backbone, row.readout, row.kind, row.split): row.value
        for name, row in rows
        if row.source in summary
    } == ELSEWHERE
    assert len(rows) == sum(map(len, PUBLISHED.values())) + len(ELSEWHERE)
    assert "2.88 on T850 and 15.9e-3 on Q700" in tasks["weatherbench2"].published.note
    assert {name: task.published.metric for name, task in load_manifest().tasks.items()} == {
        "flyvsfly": "mAP",
        "calms21": "mAP",
        "stir": "accuracy",
        "typhoon": "RMSE in hPa, mean over lead hours 1, 2, 3, 6, 12",
        "weatherbench2": "RMSE of Z500 in m2/s2, mean over 16 leads of 12 hours",
    }


def test_classes_and_their_counts_are_in_the_references_order() -> None:
    fly, mouse = (load_manifest().dataset(name) for name in ("flyvsfly", "calms21"))
    assert dict(zip(fly.classes, fly.split("train").label_counts, strict=True)) == {
        "lunging": 6_827,
        "wing_threat": 23_497,
        "tussling": 1_950,
        "wing_extension": 18_239,
        "circling": 4_388,
        "copulation": 329_372,
        "not_interacting": 687_413,
    }
    assert " ".join(fly.classes) == (
        "lunging wing_threat tussling wing_extension circling copulation not_interacting"
    )
    assert (fly.background, fly.rare) == ("not_interacting", ("wing_threat", "tussling"))
    assert list(zip(mouse.classes, mouse.split("train").label_counts, strict=True)) == [
        ("attacking", 655),
        ("sniffing", 7_586),
        ("mounting", 1_702),
        ("not interacting", 16_681),
    ]
    assert (mouse.background, mouse.rare) == ("not interacting", ())
    # The reference dropped the last incomplete batch of 32 where it counted: 346 mouse clips were not seen.
    assert (fly.split("train").label_counts_of, mouse.split("train").label_counts_of) == (1_067_008, 26_624)


def test_every_split_of_records_is_the_buckets() -> None:
    suffix = ".array_record-{shard:05d}-of-{n_shards:05d}"
    found = {
        (name, split): (entry.files, entry.n_shards, entry.n_clips)
        for name, dataset in load_manifest().datasets.items()
        if dataset.reader == "sequence_example"
        for split, entry in dataset.splits.items()
    }
    assert found == {where: (f"{files}{suffix}", *sizes) for where, (files, *sizes) in RECORDS.items()}


def test_every_data_set_is_laid_out_as_the_buckets() -> None:
    """All of it is part of fingerprints: another value would be another store, and all extracted again."""
    datasets = load_manifest().datasets
    found = {name: (one.channels, one.frame_size, dict(one.features)) for name, one in datasets.items()}
    assert found == LAID_OUT
    assert {one.version for one in datasets.values()} == {"scivid-2025"}
    readers = {name: one.reader for name, one in datasets.items()}
    assert readers == {**dict.fromkeys(LAID_OUT, "sequence_example"), "weatherbench2": "weather_zarr"}
    scaled = {name: one.pixels for name, one in datasets.items() if not one.pixels.are_bytes}
    assert scaled == {
        "digital_typhoon": Pixels(low=170.0, high=300.0),
        "weatherbench2": Pixels(
            mean=(54088.706200122775, 274.38956414978514, 0.002414660515267107),
            std=(3358.6479264235377, 15.691516333086565, 0.0025397288441720684),
        ),
    }


def test_every_window_of_every_split_is_the_references() -> None:
    splits = load_manifest().dataset("weatherbench2").splits
    assert {name: split.windows for name, split in splits.items()} == WINDOWS
    fields, too = (f"full/weatherbench/{name}.zarr" for name in (
        "weatherbench2_3variable_dataset", "ARCO_ERA5_3variable_1h_1deg",
    ))  # fmt: skip
    assert {(split.files, split.also) for split in splits.values()} == {(fields, too)}


def test_every_task_shows_its_clips_as_the_benchmark_does() -> None:
    tasks = load_manifest().tasks
    found = {
        name: (task.clip_of("train"), task.clip_of("val"), task.starts, task.augmentation, task.tokens)
        for name, task in tasks.items()
    }
    assert found == SHOWN
    assert all(task.clip_of("val") == task.clip_of("test") for task in tasks.values())


def test_the_benchmarks_own_numbers() -> None:
    manifest = load_manifest()
    fly, mouse = manifest.dataset("flyvsfly"), manifest.dataset("calms21")
    assert (fly.split("train").n_shards, fly.split("train").n_clips) == (100, 1_067_008)
    assert [mouse.split(s).n_clips for s in ("train", "val", "test")] == [26_970, 76_585, 262_107]
    assert fly.classes[-1] == fly.background == "not_interacting"
    assert [fly.classes.index(name) for name in fly.rare] == [1, 2]
    assert (fly.channels, mouse.channels) == (3, 1)
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
