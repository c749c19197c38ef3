"""Targets of every kind of task, as the reference has them, and as small readers made by hand give them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import CallError, DataError
from featcache.manifest import load_manifest
from featcache.store.targets import Targets
from tests.featcache.extract.targets.by_hand import ByHand, golden

Write = Callable[..., Targets]


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
