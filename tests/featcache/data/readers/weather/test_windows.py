"""Windows of a time axis: the reference's counts, starts and frames, and no window across a gap."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.data.readers.base import UnreadableError
from featcache.data.readers.weather.windows import plan_windows
from featcache.manifest import Windows, load_manifest

EPOCH = np.datetime64("1979-01-01T00", "h")


def hourly(first: str, n: int, step: int = 1) -> np.ndarray:
    times: np.ndarray = np.datetime64(first, "h") + step * np.arange(n)
    return times


def windows(first: str, last: str, **changes: int) -> Windows:
    return Windows(
        first=first,
        last=last,
        **{"n_frames": 32, "step_hours": 12, "every_hours": 6, "offset_hours": 0, **changes},
    )


OFFICIAL = {
    "train": (56_914, "1979-01-02T00", "2017-12-31T18"),
    "online_dev": (78, "2018-01-01T06", "2018-12-29T06"),
    "offline_dev": (730, "2017-12-24T18", "2019-01-08T18"),
    "test": (732, "2019-12-24T12", "2021-01-08T12"),
}
"""Split of the manifest -> its windows, the first frame of the first and the last frame of the last."""


@pytest.mark.parametrize("split", OFFICIAL)
def test_the_official_splits(split: str) -> None:
    entry, (count, first, last) = (
        load_manifest().dataset("weatherbench2").split(split).windows,
        OFFICIAL[split],
    )
    assert entry is not None
    times = hourly("1979-01-01", 376_944)
    plan = plan_windows(times.astype("datetime64[ns]"), entry)
    frames = plan.frames(plan.starts)
    assert frames.shape == (count, 32)
    assert (str(times[frames[0, 0]]), str(times[frames[-1, -1]])) == (first, last)


def test_starts_and_frames_are_the_references(shared: Path) -> None:
    files = sorted((shared / "golden" / "reference").glob("data_wb2_windows*.npz"))
    assert files
    for file in files:
        meta: dict[str, Any] = json.loads(file.with_suffix(".json").read_text())
        times = hourly("1979-01-01", 376_944)
        for name, summary in meta["summary"].items():
            _, first, last = summary["split"].rsplit("_", 2)
            entry = windows(
                first, last, every_hours=summary["stride_hours"], offset_hours=summary["offset_hours"]
            )
            plan = plan_windows(times, entry)
            with np.load(file, allow_pickle=False) as golden:
                expected = {key.rpartition("/")[2]: golden[key] for key in golden if f"/{name}/" in key}
            hours = (times - EPOCH).astype(int)
            assert len(plan.starts) == expected["count"] == summary["count"]
            frames = plan.frames(plan.starts)
            np.testing.assert_array_equal(
                hours[plan.starts[expected["window_index"]]], expected["window_start_hour"]
            )
            np.testing.assert_array_equal(hours[frames[0]], expected["first_frames_hours"])
            np.testing.assert_array_equal(hours[frames[-1]], expected["last_frames_hours"])


def test_by_hand() -> None:
    # Ten hours; frames 2 h apart span 4 h, so starts 1, 4 fit (1 + 3 + 3 + 4 = 11 does not).
    entry = windows("2000-01-01T05", "2000-01-01T14", n_frames=3, step_hours=2, every_hours=3, offset_hours=1)
    plan = plan_windows(hourly("2000-01-01", 48), entry)
    assert plan.frames(plan.starts).tolist() == [[6, 8, 10], [9, 11, 13]]
    assert (plan.begin, plan.stride, plan.axis_hours) == (5, 2, 1)


def test_the_last_window_ends_with_the_split() -> None:
    entry = windows("2000-01-01T00", "2000-01-01T04", n_frames=3, step_hours=2, every_hours=1)
    assert len(plan_windows(hourly("2000-01-01", 48), entry).starts) == 1


def test_a_coarser_axis_has_the_same_windows() -> None:
    fine, coarse = hourly("1999-12-01", 5000), hourly("1999-12-01", 834, step=6)
    entry = windows("2000-01-02", "2000-02", every_hours=12, offset_hours=18)
    a, b = plan_windows(fine, entry), plan_windows(coarse, entry)
    assert (b.stride, b.axis_hours) == (2, 6)
    np.testing.assert_array_equal(coarse[b.frames(b.starts)], fine[a.frames(a.starts)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"every_hours": 9}, "its times are 6 h apart, and every_hours: 9 falls between two"),
        ({"step_hours": 4}, "step_hours: 4 falls"),
        ({"offset_hours": 1}, "offset_hours: 1 falls"),
    ],
)
def test_hours_between_two_times(change: dict[str, int], message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        plan_windows(hourly("2000-01-01", 400, step=6), windows("2000", "2000", **change))


def test_a_gap_counts_only_within_the_split() -> None:
    times = np.delete(hourly("2000-01-01", 2000), [700, 701])
    with pytest.raises(
        UnreadableError, match="2000-01-30T03 is followed by 2000-01-30T06, where the others are 1 h apart"
    ):
        plan_windows(times, windows("2000", "2000"))
    plan = plan_windows(times, windows("2000-02-01", "2000-02-28"))
    assert str(times[plan.starts[0]]) == "2000-02-01T00"


def test_other_axes_that_cannot_be_used() -> None:
    times = hourly("2000-01-01", 2000)
    entry = windows("2000", "2000")
    for axis, message in (
        (times[::-1], "not ascending: 2000-03-24T06 follows 2000-03-24T07"),
        (np.insert(times, 5, times[5]), "not ascending: 2000-01-01T05 follows 2000-01-01T05"),
        (np.append(times, np.datetime64("NaT")), "not ascending: NaT follows"),
        (times[[1, 0, 2]], "write it again in order: xarray.open_zarr.*sortby"),
        (times[[0, 1, 1, 2]], "write it again in order: xarray.open_zarr.*drop_duplicates"),
        (times.astype("datetime64[m]") + 30, "not whole hours: 2000-01-01T00:30"),
        (np.datetime64("2000-01-01T00", "m") + 90 * np.arange(900), "not whole hours"),
        (hourly("2001-01-01", 50), "no series from 2000 to 2000, but 2001-01-01T00 to 2001-01-03T01"),
        (times[:0], "no series from 2000 to 2000, but no times at all"),
        (times[:372], "it holds 2000-01-01T00 to 2000-01-16T11, too short for one window of 32 frames"),
    ):
        with pytest.raises(UnreadableError, match=message):
            plan_windows(axis, entry)
    assert len(plan_windows(times[:373], entry).starts) == 1
