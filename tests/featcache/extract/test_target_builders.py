"""Targets of every kind of task, as the reference has them, and as small readers made by hand give them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.backbones import load_backbone
from featcache.clips import Clip, ClipIndex
from featcache.data.readers import open_reader
from featcache.data.readers.base import Scan
from featcache.errors import CallError, DataError
from featcache.extract.job import plan_extraction
from featcache.extract.target_builders import padded_points, targets_of, write_split_targets
from featcache.manifest import Manifest, load_manifest
from featcache.store.targets import Targets, open_targets

Write = Callable[..., Targets]


def quiet(what: str, done: int, total: int) -> None: ...


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Targets of a role of a task, from a reader, or from the records of a folder."""

    def made(task: str, role: str, source: Any, manifest: Manifest | None = None) -> Targets:
        backbone = load_backbone("resize", None)
        job = plan_extraction(
            manifest or load_manifest(), task=task, role=role, backbone=backbone,
            layers=backbone.info.default_layers, n_views=1, seed=0, dtype=torch.float32,
        )  # fmt: skip
        reader = open_reader(job.dataset, job.split, source) if isinstance(source, Path) else source
        index = reader.scan().index
        truth = targets_of(job, index, reader)
        assert truth is not None
        name = write_split_targets(truth, index, tmp_path, role, quiet)
        return open_targets(tmp_path / name)

    return made


class ByHand:
    """A reader of targets that are given, a mapping a clip."""

    def __init__(self, *rows: Mapping[str, np.ndarray], n_source: int = 24) -> None:
        self.rows, self.n_source = rows, n_source

    def scan(self, **_: object) -> Scan:
        clips = (
            Clip(id=str(i), source="s", record=i, n_source=self.n_source, digest="0" * 16)
            for i in range(len(self.rows))
        )
        return Scan(index=ClipIndex.from_clips(clips))

    def read(self, clip: Clip, frames: Any) -> np.ndarray:
        raise AssertionError("targets do not need frames")

    def frame_keys(self, clip: Clip, frames: Any) -> list[bytes]:
        raise AssertionError("nobody asks which frames are the same")

    def targets(self, clip: Clip) -> Mapping[str, np.ndarray]:
        number = np.array([700 + clip.record])
        return {"sequence": number, "video": number, **self.rows[clip.record]}


def golden(shared: Path, stage: str) -> tuple[Path, dict[str, np.ndarray]]:
    folder = shared / "golden" / "records"
    with np.load(folder / "expected" / f"{stage}.npz", allow_pickle=False) as arrays:
        return folder, dict(arrays)


def test_tracks_are_those_of_the_records(shared: Path, write: Write) -> None:
    folder, expected = golden(shared, "movi_reader_full")
    targets = write("stir", "train", folder)
    assert targets.metadata["tracks"]["dimension_names"] == ["clip", "frame", "track", "xy"]
    for clip, tracks in enumerate(targets.read("tracks")):
        np.testing.assert_array_equal(tracks, expected[f"{clip}/target_coords"])
        visible = targets.rows("visibility", np.array([clip]))[0]
        np.testing.assert_array_equal(visible, expected[f"{clip}/target_vis"])


@pytest.mark.parametrize("role", ["val", "test"])
def test_points_are_padded_as_the_reference_pads_them(shared: Path, write: Write, role: str) -> None:
    folder, expected = golden(shared, "stir_eval")
    targets = write("stir", role, folder)
    for ours, theirs in (("queries", "query_coords"), ("ends", "target_coords")):
        for clip, points in enumerate(targets.read(ours)):
            np.testing.assert_array_equal(points, expected[f"{clip}/{theirs}"])
    for ours, theirs in (("query_mask", "query_mask"), ("end_mask", "target_mask")):
        for clip, mask in enumerate(targets.read(ours)):
            np.testing.assert_array_equal(mask, expected[f"{clip}/{theirs}"][:, 0])


@pytest.mark.parametrize("name", ["startir", "endir"])
def test_points_of_the_fixture(shared: Path, name: str) -> None:
    with np.load(shared / "golden" / "reference" / "data_stir_points.npz") as arrays:
        points = np.stack([arrays[f"in/{name}|object|keypoint|{axis}"] for axis in "xy"], axis=-1)
        kind = "query" if name == "startir" else "target"
        padded, mask = padded_points(points)
        np.testing.assert_array_equal(padded, arrays[f"out/{kind}_coords"])
        np.testing.assert_array_equal(mask, arrays[f"out/{kind}_mask"][:, 0])


def test_pressures_are_those_of_the_reference(shared: Path, write: Write) -> None:
    folder, expected = golden(shared, "typhoon_eval_native")
    targets = write("typhoon", "test", folder)
    series = targets.read("series")
    assert series.shape[1:] == (1, 24)
    assert targets.read("sequence").tolist() == [expected[f"{clip}/video_id"] for clip in range(len(series))]
    for clip, (values,) in enumerate(series):
        np.testing.assert_array_equal(values[12:], expected[f"{clip}/pressure"])
        np.testing.assert_array_equal(values[11], expected[f"{clip}/repeated_last_pressure"][0])


def test_a_series_starts_where_its_view_does(write: Write) -> None:
    series = np.arange(30, dtype=np.float32)
    (views,) = write("typhoon", "train", ByHand({"series": series}, n_source=30)).read("series")
    # 30 steps have the starts 0 to 5 (the one after which exactly 24 are left is never drawn).
    assert views[:6, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert views[6:, 0].tolist() == [0, 1]
    assert views[5].tolist() == list(range(5, 29))


def test_a_short_series_repeats_its_last_value(write: Write) -> None:
    series = np.arange(20, dtype=np.float32)
    (views,) = write("typhoon", "train", ByHand({"series": series}, n_source=20)).read("series")
    assert (views == np.minimum(np.arange(24), 19)).all()


def test_a_field_is_stored_once_a_time_step(shared: Path, write: Write) -> None:
    folder, expected = golden(shared, "weatherbench_eval")
    targets = write("weatherbench2", "val", folder)
    places, time = targets.read("places"), targets.read("time")
    assert places.shape == (3, 17)
    # Three windows 12 h apart whose frames are 12 h apart: all but two of a window are the next one's too.
    assert targets.shape("fields") == (19, 181, 360, 3)
    assert (np.diff(time) == 12).all()
    assert targets.read("latitude")[[0, -1]].tolist() == [-90.0, 90.0]
    for clip, rows in enumerate(places):
        fields = targets.rows("fields", rows.astype(np.int64))
        np.testing.assert_array_equal(fields[1:, 1::7, 1::7], expected[f"{clip}/future.sub"])
        np.testing.assert_array_equal(fields[0, 1::7, 1::7], expected[f"{clip}/image.sub"][-1])


@pytest.mark.parametrize(
    ("task", "role", "row", "why"),
    [
        ("typhoon", "test", {"series": np.zeros((24, 2), np.float32)}, r"a series \[24, 2\] for 24 frames"),
        (
            "typhoon",
            "test",
            {"series": np.zeros(24, np.float32), "sequence": np.array([1.5])},
            r"sequence is \[1.5\], not one whole number",
        ),
        ("stir", "train", {"tracks": np.zeros((24, 5, 2)), "visibility": np.zeros((24, 4))}, "do not belong"),
        (
            "stir",
            "val",
            {f"{side}_{axis}": np.zeros(35, np.float32) for side in ("start", "end") for axis in "xy"},
            "35 x and 35 y coordinates of points; as many of both, and at most 34",
        ),
    ],
)
def test_targets_of_another_form_are_refused(
    write: Write, task: str, role: str, row: dict[str, np.ndarray], why: str
) -> None:
    with pytest.raises(DataError, match=why):
        write(task, role, ByHand(row))


def test_all_clips_have_as_many_tracks(write: Write) -> None:
    rows = [
        {"tracks": np.zeros((24, n, 2), np.float32), "visibility": np.zeros((24, n), np.float32)}
        for n in (5, 6)
    ]
    with pytest.raises(DataError, match=r"record 1: tracks \[24, 6, 2\], those before it \[24, 5, 2\]"):
        write("stir", "train", ByHand(*rows))


def test_a_manifest_that_lacks_what_a_kind_needs_is_refused(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "tasks: {typhoon: {starts: {rule: window, span: 12, n_starts: 2}}, stir: {kind: forecast}}"
    )
    manifest = load_manifest(file)
    with pytest.raises(CallError, match="more than the clip's 12"):
        write("typhoon", "test", ByHand({"series": np.zeros(24)}), manifest)
    with pytest.raises(CallError, match="a forecast needs a data set of fields, not stir"):
        write("stir", "val", ByHand({}), manifest)
