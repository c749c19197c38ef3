"""Clips with targets (MOVi-E, STIR, Digital Typhoon): equal to the reference's, and broken ones."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange, repeat

from featcache.clips import Clip
from featcache.data.readers import open_reader
from featcache.data.readers.base import Reader
from featcache.data.readers.sequence_example import reader as sequence_example
from featcache.data.readers.sequence_example.wire import parse_sequence_example
from featcache.data.sampling import frame_indices, repeat_frames
from featcache.errors import CallError, DataError
from featcache.manifest import Dataset, load_manifest
from featcache.resampling import resize_area, resize_bilinear, value_range

Case = Mapping[str, np.ndarray]
KINDS = {float: "float_list", int: "int64_list", bytes: "bytes_list"}
MOST_POINTS = 34


def golden(shared: Path, name: str, split: str, stage: str) -> list[tuple[Dataset, Reader, Clip, Case]]:
    """The clips of a split in every folder of golden records, with what the reference gave for each."""
    dataset = load_manifest().dataset(name)
    found: list[tuple[Dataset, Reader, Clip, Case]] = []
    for file in sorted(shared.glob(f"golden/records*/expected/{stage}.npz")):
        reader = open_reader(dataset, split, file.parents[1])
        index = reader.scan().index
        with np.load(file, allow_pickle=False) as arrays:
            flat = dict(arrays)
        assert {key.partition("/")[0] for key in flat} == {str(i) for i in range(len(index))}
        for i in range(len(index)):
            case = {k.partition("/")[2]: v for k, v in flat.items() if k.startswith(f"{i}/")}
            found.append((dataset, reader, index.clip(i), case))
    assert found, f"no golden file is called {stage}.npz"
    return found


def assert_like(found: np.ndarray, case: Case, key: str, *, atol: float) -> None:
    """Compare an array [F Y X C] with the parts of it that the golden files keep."""
    exact = found.astype(np.float64)
    assert list(found.shape) == case[f"{key}.shape"].tolist()
    np.testing.assert_allclose(exact[:, 1::7, 1::7], case[f"{key}.sub"], rtol=0, atol=atol)
    np.testing.assert_allclose(exact[0, ::32], case[f"{key}.frame0_rows"], rtol=0, atol=atol)
    np.testing.assert_allclose(exact.mean((1, 2)), case[f"{key}.mean"], rtol=0, atol=max(atol, 1e-6))
    np.testing.assert_allclose((exact**2).mean((1, 2)), case[f"{key}.sq"], rtol=1e-5)


def resized(frames: np.ndarray) -> np.ndarray:
    planes = rearrange(torch.from_numpy(frames).float(), "f y x c -> f c y x")
    return rearrange(resize_bilinear(planes, 224, 224), "f c y x -> f y x c").numpy()


def test_movi_equals_the_reference(shared: Path) -> None:
    for _, reader, clip, case in golden(shared, "movi", "train", "movi_reader_full"):
        assert clip.n_source == case["vid_len"]
        targets = reader.targets(clip)
        np.testing.assert_array_equal(targets["tracks"], case["target_coords"], strict=True)
        np.testing.assert_array_equal(targets["visibility"], case["target_vis"], strict=True)
        assert_like(resized(reader.read(clip, case["frame_idx"])), case, "video", atol=2e-3)


@pytest.mark.parametrize("split", ["full_val", "test"])
def test_stir_equals_the_reference(shared: Path, split: str) -> None:
    stages = [golden(shared, "stir", split, f"stir_{stage}") for stage in ("native", "eval")]
    spec = load_manifest().task("stir").clip_of("test")
    for (_, reader, clip, native), (*_, evaluation) in zip(*stages, strict=True):
        frames = frame_indices(spec, clip.n_source)
        np.testing.assert_array_equal(frames, native["frame_idx"])
        stored = reader.read(clip, frames)
        assert_like(stored, native, "video", atol=0)
        assert_like(resized(stored) / 255, evaluation, "video", atol=1e-5)
        targets = reader.targets(clip)
        for side, name in (("start", "query"), ("end", "target")):
            points = np.stack([targets[f"{side}_x"], targets[f"{side}_y"]], axis=-1)
            n_points = int(native[f"{name}_mask"].sum())
            np.testing.assert_array_equal(points, native[f"{name}_coords"][:n_points], strict=True)
        np.testing.assert_array_equal(targets["video"], native["video_idx"], strict=True)
        np.testing.assert_array_equal(targets["duration"], native["duration"], strict=True)


def test_typhoon_equals_the_reference(shared: Path) -> None:
    names = ("typhoon_eval_native", "typhoon_eval")
    stages = [golden(shared, "digital_typhoon", "test", name) for name in names]
    for (dataset, reader, clip, native), (*_, evaluation) in zip(*stages, strict=True):
        hours = np.minimum(np.arange(24), clip.n_source - 1)
        stored = reader.read(clip, hours[:12])
        assert stored.dtype == np.float32
        scaled = value_range(torch.from_numpy(stored), dataset.pixels.low, dataset.pixels.high)
        assert_like(repeat(scaled, "f y x 1 -> f y x rgb", rgb=3).numpy(), native, "model_input", atol=1e-6)
        planes = rearrange(scaled[torch.from_numpy(repeat_frames(12)).long()], "f y x 1 -> f 1 y x")
        seen = repeat(resize_area(planes, 224, 224), "f 1 y x -> f y x rgb", rgb=3)
        assert_like(seen.numpy(), evaluation, "model_input", atol=1e-4)
        targets = reader.targets(clip)
        assert targets["series"].shape == (clip.n_source,)
        np.testing.assert_array_equal(targets["series"][hours[12:]], native["pressure"], strict=True)
        assert targets["series"][hours[11]] == native["repeated_last_pressure"][0]
        assert targets["sequence"].tolist() == [native["video_id"]]


def fill(feature: Any, values: Sequence[Any]) -> None:
    for value in values:
        getattr(feature, KINDS[type(value)]).value.append(value)


def record(
    message: type[Any],
    steps: Mapping[str, Sequence[Sequence[Any]]],
    context: Mapping[str, Sequence[Any]] | None = None,
) -> bytes:
    """A record: name -> values of each step, and name -> values; the values' type says which kind."""
    example = message()
    for name, values in (context or {}).items():
        fill(example.context.feature[name], values)
    for name, values_of_steps in steps.items():
        feature_list = example.feature_lists.feature_list[name]
        for values in values_of_steps:
            fill(feature_list.feature.add(), values)
    return bytes(example.SerializeToString())


def field_of(level: float, n: int = 6) -> list[float]:
    return [level + i / 8 for i in range(n)]


STORM: dict[str, Any] = {"heat": [field_of(k) for k in range(3)], "pressure": [[1000.0], [990.0], [985.0]]}
FEATURES = {"values": "heat", "series": "pressure", "storm": "key"}


def storms(shards: Any, *records: bytes, **changes: Any) -> tuple[Reader, Clip]:
    """A split of fields of 2 x 3 values, and the first of its clips."""
    shards.write([records])
    reader = open_reader(
        shards.dataset(**{"features": FEATURES, "frame_size": (2, 3), "n_shards": 1, **changes}),
        "val",
        shards.folder,
    )
    return reader, reader.scan().index.clip(0)


def test_fields_are_laid_out_row_by_row(shards: Any) -> None:
    reader, clip = storms(shards, record(shards.message, STORM, {"key": [b"200717"]}))
    frames = reader.read(clip, [2, 0, 2])
    wanted = np.array([[[2, 2.125, 2.25], [2.375, 2.5, 2.625]]], np.float32)[..., None]
    np.testing.assert_array_equal(frames, np.concatenate([wanted, wanted - 2, wanted]), strict=True)
    assert clip.n_source == 3
    reader, clip = storms(
        shards, record(shards.message, STORM, {"key": [b"1"]}), frame_size=(1, 2), channels=3
    )
    assert reader.read(clip, [0])[0, 0, 1].tolist() == [0.375, 0.5, 0.625]


def test_targets_by_the_names_of_the_manifest(shards: Any) -> None:
    blob = bytes.fromhex("0801 1204 1202 0802 2208 0000003f 00000040")
    steps: dict[str, Any] = {
        "image/encoded": [[b"no image"]] * 2,
        "tracks": [[blob]] * 2,
        "wind": [[1.0, 2.0], [3.0, 4.0]],
        "grade": [[3], [4]],
    }
    context: dict[str, list[Any]] = {"x": [0.25, 0.5], "key": [b"200717"], "unasked": [1]}
    example = record(shards.message, steps, {**context, "end": []})
    names = {"points": "tracks", "wind": "wind", "grade": "grade", "x": "x", "id": "key", "end": "end"}
    reader, clip = storms(shards, example, features={"image": "image/encoded", **names})
    targets = reader.targets(clip)
    assert list(targets) == list(names)
    wanted = {
        "points": np.array([[0.5, 2], [0.5, 2]], np.float32),
        "wind": np.array([[1, 2], [3, 4]], np.float32),
        "grade": np.array([3, 4]),
        "x": np.array([0.25, 0.5], np.float32),
        "id": np.array([200_717]),
        "end": np.empty(0, np.float32),
    }
    for name, values in wanted.items():
        np.testing.assert_array_equal(targets[name], values, strict=True)


def test_targets_read_a_record_once_and_no_frame(shards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {**STORM, "heat": [[1, 2]] * 3}
    reader, clip = storms(shards, record(shards.message, broken, {"key": [b"7"]}))
    parsed: list[int] = []

    def counted(data: bytes, wanted: Any) -> Any:
        parsed.append(len(data))
        return parse_sequence_example(data, wanted)

    monkeypatch.setattr(sequence_example, "parse_sequence_example", counted)
    assert reader.targets(clip)["series"].tolist() == [1000, 990, 985]
    assert len(parsed) == 1


def test_a_data_set_of_labels_has_no_targets_and_reads_nothing(shards: Any) -> None:
    shards.write([[shards.record(shards.jpegs[:2], [1])], [], []])
    reader = open_reader(shards.dataset(), "val", shards.folder)
    clip = reader.scan().index.clip(0)
    shards.path(0, 3).unlink()
    assert reader.targets(clip) == {}


def test_many_threads_read_the_same_targets(shards: Any) -> None:
    records = [
        record(shards.message, {**STORM, "pressure": [[float(k)]] * 3}, {"key": [str(k).encode()]})
        for k in range(12)
    ]
    reader, _ = storms(shards, *records)
    clips = [reader.scan().index.clip(i % 12) for i in range(120)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(reader.targets, clips))
    assert [int(targets["storm"][0]) for targets in found] == [i % 12 for i in range(120)]
    assert [targets["series"].tolist() for targets in found] == [[i % 12] * 3 for i in range(120)]


@pytest.mark.parametrize(
    ("steps", "context", "reason"),
    [
        (
            {"heat": STORM["heat"]},
            {"key": [b"1"], "wind": [1.0]},
            "no feature 'pressure', the manifest's series; .* wind",
        ),
        (STORM, {}, "no feature 'key', the manifest's storm; the record holds nothing else"),
        ({**STORM, "pressure": [[1.0]] * 2}, {"key": [b"1"]}, "feature 'pressure' has 2 steps for 3 frames"),
        ({**STORM, "pressure": []}, {"key": [b"1"]}, "feature 'pressure' has 0 steps for 3 frames"),
        ({"pressure": STORM["pressure"]}, {"key": [b"1"]}, "no frames under 'heat'"),
    ],
)
def test_a_scan_finds_records_without_what_the_manifest_names(
    shards: Any, steps: dict[str, Any], context: dict[str, Any], reason: str
) -> None:
    good = record(shards.message, STORM, {"key": [b"1"]})
    place = re.escape(str(shards.path(0, 1))) + ", record 1: "
    with pytest.raises(DataError, match=f"{place}{reason}.*--skip-bad"):
        storms(shards, good, record(shards.message, steps, context))
    reader = open_reader(
        shards.dataset(features=FEATURES, frame_size=(2, 3), n_shards=1), "val", shards.folder
    )
    scan = reader.scan(skip_bad=True)
    assert [len(scan.index), len(scan.skipped)] == [1, 1]
    with pytest.raises(DataError, match=f"{place}{reason}"):
        reader.targets(Clip(id="", source=scan.index.clip(0).source, record=1, n_source=3, digest=""))


@pytest.mark.parametrize(
    ("series", "key", "reason"),
    [
        ([b"\x08\x01\x22\x09abc"], b"1", "feature 'pressure': step 2: a field of 9 bytes has only 3 left"),
        ([b"\x08\x07"], b"1", "feature 'pressure': step 2: a tensor of TensorFlow's type 7"),
        ([985], b"1", r"feature 'pressure': step 2 is int64 \[\], step 0 float32 \[\]"),
        ([985.0, 1.0], b"1", r"feature 'pressure': step 2 is float32 \[2\], step 0 float32 \[\]"),
        ([], b"1", "feature 'pressure': step 2: it holds no value"),
        ([985.0], b"Ewiniar", "feature 'key': b'Ewiniar' is not a number"),
    ],
)
def test_a_target_that_cannot_be_decoded_is_named_and_can_be_left_out(
    shards: Any, series: list[Any], key: bytes, reason: str
) -> None:
    """Seen by the scan: a clip without targets could not be left out any later."""
    steps = {**STORM, "pressure": [[1000.0], [990.0], series]}
    good = record(shards.message, STORM, {"key": [b"1"]})
    with pytest.raises(DataError, match=f"{re.escape(str(shards.path(0, 1)))}, record 1: {reason}"):
        storms(shards, good, record(shards.message, steps, {"key": [key]}))
    dataset = shards.dataset(features=FEATURES, frame_size=(2, 3), n_shards=1)
    scan = open_reader(dataset, "val", shards.folder).scan(skip_bad=True)
    assert [len(scan.index), len(scan.skipped)] == [1, 1]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([0.0] * 65_535, "65535 values where .* 256 x 256 x 1 = 65536"),
        ([0] * 65_536, "does not hold float32 values"),
        ([b"\xff\xd8\xff"], "does not hold float32 values"),
        ([], "does not hold float32 values"),
    ],
)
def test_a_field_that_cannot_be_laid_out_is_refused(shards: Any, values: list[Any], reason: str) -> None:
    steps: dict[str, Any] = {"heat": [[280.0] * 65_536, values]}
    reader, clip = storms(
        shards, record(shards.message, steps), features={"values": "heat"}, frame_size=(256, 256)
    )
    assert reader.read(clip, [0, 0]).shape == (2, 256, 256, 1)
    with pytest.raises(DataError, match=f"record 0, frame 1: .*{reason}"):
        reader.read(clip, [0, 1])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"features": {"series": "pressure"}}, "found 0 of the two"),
        ({"features": {"image": "a", "values": "b"}}, "found 2 of the two"),
        ({"features": FEATURES, "frame_size": None}, r"need `frame_size: \[rows, columns\]`"),
    ],
)
def test_frames_are_named_once_and_have_a_size(shards: Any, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CallError, match=rf"datasets\.mice.*{reason}"):
        open_reader(shards.dataset(**changes), "val", shards.folder)
