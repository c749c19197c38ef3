"""The pressure law, what each image tells, and that the future needs the order of the images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from einops import reduce

from featcache.manifest import load_manifest
from featcache.synthetic import generate
from featcache.synthetic.base import stream
from featcache.synthetic.typhoon import Storm, draw_frames, draw_storm, record, sequence_key

DATASET = load_manifest().dataset("digital_typhoon")
SCORED = [0, 1, 2, 5, 11]
"""Lead steps that the benchmark's score averages: 1, 2, 3, 6 and 12 hours."""


def storms(split: str, n: int) -> list[Storm]:
    return [draw_storm(stream(7, split, i), 24) for i in range(n)]


def score(predicted: np.ndarray, future: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - future) ** 2, axis=0))[SCORED].mean())


def brightness(storm: Storm, *key: str | int) -> np.ndarray:
    """Mean of each of the 12 input images, on the scale of the model's input."""
    seen = Storm(intensity=storm.intensity[:12], pressure=storm.pressure[:12], turn=storm.turn[:12])
    frames = draw_frames(seen, stream("clouds", *key))
    return reduce((np.clip(frames, 170.0, 300.0) - 170.0) / 130.0, "f y x -> f", "mean")


def ridge(features: np.ndarray, targets: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A linear map with a small penalty."""
    mean, offset = features.mean(axis=0), targets.mean(axis=0)
    gram = (features - mean).T @ (features - mean) + 1e-3 * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, (features - mean).T @ (targets - offset))
    return lambda new: (new - mean) @ weights + offset


def parsed(path: Path, sequence_example: Callable[[bytes], Any]) -> Any:
    """The first record of a shard."""
    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
    return sequence_example(reader.read([0])[0])


def layout(message: Any) -> dict[str, tuple[str, int]]:
    """Feature -> its kind and the number of values a step."""
    found = {}
    for entry in message.context.entries:
        found[entry.key] = _kind(entry.value)
    for entry in message.feature_lists.entries:
        kinds = {_kind(step) for step in entry.value.feature}
        assert len(kinds) == 1
        found[entry.key] = kinds.pop()
    return found


def _kind(feature: Any) -> tuple[str, int]:
    ((kind, values),) = ((field.name, value.value) for field, value in feature.ListFields())
    return kind, len(values)


def column(message: Any, key: str) -> np.ndarray:
    (values,) = (e.value.feature for e in message.feature_lists.entries if e.key == key)
    return np.array([(step.float_list.value or step.int64_list.value)[0] for step in values])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("typhoon")
    generate("digital_typhoon", folder, profile={"train": 2, "val": 1})
    return folder / "full/digital_typhoon_slim"


def test_a_record_has_the_features_of_the_release(
    data_dir: Path, shared: Path, sequence_example: Callable[[bytes], Any]
) -> None:
    golden = sorted((shared / "golden/records/full").glob("digital_typhoon*/train_*-00000-of-*"))[0]
    ours = parsed(data_dir / "val_imsize_256_max_frames_32.array_record-00000-of-00002", sequence_example)
    assert layout(ours) == layout(parsed(golden, sequence_example))
    assert layout(ours)["image/infrared"] == ("float_list", 65536)


def test_hours_follow_each_other_and_wind_goes_with_pressure(
    data_dir: Path, sequence_example: Callable[[bytes], Any]
) -> None:
    path = data_dir / "val_imsize_256_max_frames_32.array_record-00000-of-00002"
    message = parsed(path, sequence_example)
    (key,) = message.context.entries[0].value.bytes_list.value
    dates = [
        np.datetime64(f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}", "h")
        for year, month, day, hour in zip(
            *(column(message, name) for name in ("year", "month", "day", "hour")), strict=True
        )
    ]
    assert len(dates) == 32
    assert set(np.diff(dates).astype(int)) == {1}
    assert key.decode().startswith(str(dates[0])[:4])
    pressure, wind, grade = (column(message, name) for name in ("pressure", "wind", "grade"))
    assert np.corrcoef(pressure, wind)[0, 1] < -0.9
    np.testing.assert_array_equal(grade[wind >= 64], 5)
    assert 100 < column(message, "lon").min() < column(message, "lon").max() < 180
    assert 0 < column(message, "lat").min() < column(message, "lat").max() < 45


def test_one_training_sequence_is_short(
    data_dir: Path, read_shard: Callable[[Path], list[bytes]], sequence_example: Callable[[bytes], Any]
) -> None:
    records = [one for path in sorted(data_dir.glob("train_*")) for one in read_shard(path)]
    lengths = [len(column(sequence_example(one), "pressure")) for one in records]
    assert lengths == [32, 20]


def test_keys_are_digits_and_never_shared() -> None:
    keys = [sequence_key(split, index) for split in ("train", "val", "test") for index in range(300)]
    assert all(key.isdecimal() for key in keys)
    assert len(set(map(int, keys))) == len(keys)


def test_an_item_is_a_function_of_split_index_and_seed() -> None:
    first = record("val", 1, seed=3, dataset=DATASET)
    assert first == record("val", 1, seed=3, dataset=DATASET)
    assert first != record("test", 1, seed=3, dataset=DATASET)
    assert first != record("val", 1, seed=4, dataset=DATASET)


def test_pressure_is_a_line_of_intensity_and_both_signs_of_change_occur() -> None:
    courses = storms("law", 60)
    for storm in courses:
        np.testing.assert_allclose(storm.pressure, 1008.0 - 85.0 * storm.intensity, atol=2.0)
    change = np.array([storm.pressure[11] - storm.pressure[0] for storm in courses])
    assert (change > 10).mean() > 0.25
    assert (change < -10).mean() > 0.25


def test_controls_score_as_the_demo_expects() -> None:
    train, test = (np.array([s.pressure for s in storms(split, 400)]) for split in ("train", "test"))
    assert 9.0 < score(test[:, 11:12], test[:, 12:]) < 13.0
    assert 18.0 < score(train[:, 12:].mean(axis=0), test[:, 12:]) < 22.0


def test_the_clouds_of_one_hour() -> None:
    weak, strong = (
        Storm(intensity=np.array([i]), pressure=np.zeros(1), turn=np.zeros(1)) for i in (0.1, 0.9)
    )
    (calm,), (wild,) = (draw_frames(storm, stream("same")) for storm in (weak, strong))
    assert calm.shape == wild.shape == (256, 256)
    assert 180 <= wild.min() < 215 < 260 < calm.min()
    assert wild.mean() < calm.mean() - 20
    np.testing.assert_array_equal(wild, np.rint(wild))
    middle, ring = wild[126:130, 126:130].mean(), wild[128, 145:165].mean()
    assert middle > ring + 25  # the eye


def test_clouds_turn_anticlockwise() -> None:
    still = np.full(2, 0.8)
    storm = Storm(intensity=still, pressure=np.zeros(2), turn=np.array([0.0, np.pi / 2]))
    before, after = draw_frames(storm, stream("turn"))
    circle = 80.0 * np.exp(2j * np.pi * np.arange(360) / 360)
    rows, columns = (np.rint(127.5 - circle.imag).astype(int), np.rint(127.5 + circle.real).astype(int))
    first, second = (frame[rows, columns] - frame[rows, columns].mean() for frame in (before, after))
    match = [float(np.roll(first, degrees) @ second) for degrees in range(360)]
    assert abs(int(np.argmax(match)) - 90) <= 10


@pytest.mark.parametrize(("index", "year"), [(0, 1978), (11, 2011)])
def test_invalid_pixels_occur_in_old_images_only(
    index: int, year: int, sequence_example: Callable[[bytes], Any]
) -> None:
    message = sequence_example(record("train", index, seed=0, dataset=DATASET))
    assert column(message, "year")[0] == year
    (images,) = (e.value.feature for e in message.feature_lists.entries if e.key == "image/infrared")
    valid = np.array(images[0].float_list.value)
    assert ((valid < 170.0) | (valid > 310.0)).any() == (year < 1990)
    assert valid.min() >= -19.2
    assert valid.max() <= 337.0


def test_the_order_of_the_images_tells_the_future() -> None:
    train, test = storms("fit", 40), storms("probe", 20)
    seen = {name: np.array([brightness(s, name, i) for i, s in enumerate(part)])
            for name, part in (("fit", train), ("probe", test))}  # fmt: skip
    past, future = (np.array([s.pressure for s in part]) for part in (train, test))
    ordered = ridge(seen["fit"], past[:, 12:])
    averaged = ridge(seen["fit"].mean(axis=1, keepdims=True), past[:, 12:])
    shuffled = np.array([stream("shuffle", i).permutation(row) for i, row in enumerate(seen["probe"])])
    error = score(ordered(seen["probe"]), future[:, 12:])
    assert error < 4.5
    assert error < 0.5 * score(future[:, 11:12], future[:, 12:])
    assert score(averaged(seen["probe"].mean(axis=1, keepdims=True)), future[:, 12:]) > 2.5 * error
    assert score(ordered(shuffled), future[:, 12:]) > 2.5 * error
    level = np.corrcoef(seen["probe"].ravel(), np.array([s.pressure[:12] for s in test]).ravel())[0, 1]
    assert level > 0.985
