"""The shipped manifest has the benchmark's numbers; a wrong one is one message with file and place."""

from pathlib import Path

import pytest

from featcache.errors import CallError
from featcache.manifest.loading import load_manifest, shipped_manifest
from featcache.manifest.values import Pixels, Windows
from featcache.spec import ClipSpec, Starts


def overlay(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_an_overlay_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = overlay(tmp_path, "datasets: {flyvsfly: {version: mine, splits: {val: {n_shards: 3}}}}")
    changed, shipped = load_manifest(path).dataset("flyvsfly"), load_manifest().dataset("flyvsfly")
    assert (changed.version, changed.split("val").n_shards) == ("mine", 3)
    assert changed.split("train") == shipped.split("train")
    assert changed.split("val").files == shipped.split("val").files


def test_files_of_ones_own_have_no_official_copy(tmp_path: Path) -> None:
    official = load_manifest().dataset("weatherbench2").bucket
    assert official is not None
    for change, expected in (
        ("splits: {test: {files: mine.zarr}}", None),
        ("splits: {mine: {files: mine.zarr, windows: {first: 2018, last: 2018}}}", None),
        ("frame_size: [9, 18]", None),
        ("latitude: [30, 60]", None),
        ("frame_size: [9, 18], bucket: gs://mine", "gs://mine"),
        ("version: other", official),
        ("splits: {test: {windows: {every_hours: 24}}}", official),
    ):
        text = f"datasets: {{weatherbench2: {{{change}}}}}".replace(
            "{first: 2018, last: 2018}",
            '{first: "2018", last: "2018", n_frames: 32, step_hours: 12, every_hours: 6}',
        )
        assert load_manifest(overlay(tmp_path, text)).dataset("weatherbench2").bucket == expected, change


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
        ("datasets: {flyvsfly: {spltis: {}}}", "datasets.flyvsfly", "Did you mean 'splits'"),
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
        ("tasks: {stir: {starts: {n_start: 3}}}", "tasks.stir.starts", "Did you mean 'n_starts'"),
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
        (
            "datasets: {weatherbench2: {splits: {test: {windows: {first: 2018-13-45}}}}}",
            "weatherbench2.splits.test.windows.first",
            "an ISO date.*found '2018-13-45'",
        ),
        ("datasets: {calms21: {splits: {val: {n_shards: 100000}}}}", "calms21.splits.val.n_shards", "99,999"),
        (
            "datasets: {weatherbench2: {latitude: [90, -90]}}",
            "weatherbench2.latitude",
            "ascending, -90 to 90",
        ),
        ("datasets: {weatherbench2: {latitude: [30]}}", "weatherbench2.latitude", "a list of 2"),
        ("datasets: {weatherbench2: {longitude: [0, 360]}}", "weatherbench2.longitude", "less than 360"),
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


@pytest.mark.parametrize("name", ["../mice", "", ".hidden", "-x", "a\\\\b", "a\\nb", "x" * 101])
def test_a_name_that_is_a_path_is_no_name(tmp_path: Path, name: str) -> None:
    text = f'tasks: {{"{name}": {{title: T, kind: features, splits: {{train: calms21/train}}}}}}'
    with pytest.raises(CallError, match=r"mine\.yaml, at tasks: no folder can be called"):
        load_manifest(overlay(tmp_path, text))
    text = f'datasets: {{stir: {{splits: {{"{name}": {{files: "x.mp4"}}}}}}}}'
    with pytest.raises(CallError, match=r"mine\.yaml, at splits: no folder can be called"):
        load_manifest(overlay(tmp_path, text))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        CallError, match=r"no task is called 'flyvfly': known are flyvsfly, .*Did you mean 'flyvsfly'"
    ):
        load_manifest().task("flyvfly")
    with pytest.raises(CallError, match="no split of flyvsfly is called 'dev'"):
        load_manifest().dataset("flyvsfly").split("dev")


def test_the_shipped_manifest_is_found_in_a_checkout() -> None:
    assert shipped_manifest().name == "data_manifest.yaml"
