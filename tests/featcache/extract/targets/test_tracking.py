"""Tracks and marked points, as the reference has them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featcache.errors import DataError
from featcache.extract.targets.tracking import padded_points
from featcache.store.targets import Targets
from tests.featcache.extract.targets.by_hand import ByHand, golden

Write = Callable[..., Targets]


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


def test_all_clips_have_as_many_tracks(write: Write) -> None:
    rows = [
        {"tracks": np.zeros((24, n, 2), np.float32), "visibility": np.zeros((24, n), np.float32)}
        for n in (5, 6)
    ]
    with pytest.raises(DataError, match=r"record 1: tracks \[24, 6, 2\], those before it \[24, 5, 2\]"):
        write("stir", "train", ByHand(*rows))
