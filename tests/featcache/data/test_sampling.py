"""Which frames make a clip: by hand, and as the reference draws them."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from featcache.data.sampling import frame_indices, repeat_frames
from featcache.errors import DataError
from featcache.spec import ClipSpec, Sampling, random_clip_starts, window_starts


def golden(shared: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(shared / "golden" / "reference" / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def letters(case: str) -> dict[str, Any]:
    """L17_N2_S1_C3 -> {"L": 17, ...}."""
    return {part[0]: None if part[1:] == "None" else int(part[1:]) for part in case.split("_")}


@pytest.mark.parametrize(
    ("sampling", "stride", "n_source", "expected"),
    [
        ("clip", 1, 5, [0, 1, 2, 3]),
        ("clip", 2, 5, [0, 2, 4, 4]),
        ("clip", 1, 2, [0, 1, 1, 1]),
        # (10 - 4) // 2 = 3 to 10 - 3 = 7, inclusive: 3, 4.33, 5.67, 7
        ("middle_clip", 1, 10, [3, 4, 5, 7]),
        ("linspace_clip", 1, 11, [0, 3, 7, 10]),
        # 0, 0.5, 1, 1.5: halves go to the even neighbour
        ("linspace_clip", 1, 1, [0, 0, 0, 0]),
    ],
)
def test_frames_by_hand(sampling: Sampling, stride: int, n_source: int, expected: list[int]) -> None:
    frames = frame_indices(ClipSpec(n_frames=4, stride=stride, sampling=sampling), n_source)
    assert frames.tolist() == expected
    assert frames.dtype == np.int32


@pytest.mark.parametrize(
    ("start", "stride", "expected"),
    [(3, 1, [3, 4, 5, 6]), (3, 2, [3, 5, 7, 9]), (7, 1, [7, 8, 9, 9]), (12, 1, [9, 9, 9, 9])],
)
def test_a_start_moves_the_clip_and_the_last_frame_is_repeated(
    start: int, stride: int, expected: list[int]
) -> None:
    assert frame_indices(ClipSpec(n_frames=4, stride=stride), 10, start).tolist() == expected


def test_linspace_rounds_halves_to_even() -> None:
    assert frame_indices(ClipSpec(n_frames=3, sampling="linspace_clip"), 2).tolist() == [0, 0, 1]


def test_frames_equal_the_reference(shared: Path) -> None:
    cases = golden(shared, "data_process_idx")
    checked = 0
    for key, expected in cases.items():
        n = letters(key.split("/")[2])
        mode: Any = key.split("/")[1]
        # The reference's two other modes, of whole videos and of several clips, no task asks for.
        if mode in get_args(Sampling):
            found = frame_indices(ClipSpec(n_frames=n["N"], stride=n["S"], sampling=mode), n["L"])
            np.testing.assert_array_equal(found, expected, err_msg=key)
            checked += 1
    assert checked > 500


def test_frames_equal_the_reference_of_the_records(shared: Path) -> None:
    with np.load(shared / "golden" / "records" / "expected_augment.npz", allow_pickle=False) as cases:
        for key in cases.files:
            kind, *case = key.split("/")
            if kind == "frame_idx":
                sampling: Any = case[0]
                found = frame_indices(ClipSpec(sampling=sampling), int(case[1]))
            elif kind == "repeat_frames":
                found = repeat_frames(int(case[0]))
            else:
                continue
            np.testing.assert_array_equal(found, cases[key], err_msg=key)


def test_random_starts_equal_the_reference(shared: Path) -> None:
    cases = golden(shared, "data_random_clip_support")
    for key, expected in cases.items():
        n = letters(key.partition("/")[2])
        if key.startswith("out/"):
            assert list(random_clip_starts(n["N"], n["S"], n["L"], n["M"])) == expected.tolist(), key
    assert list(random_clip_starts(24, 1, 32, 8)) == list(range(8))


def test_window_starts_equal_the_reference(shared: Path) -> None:
    cases = golden(shared, "data_random_crop_support")
    for n_source in (10, 16, 17, 24, 40):
        expected = cases[f"out/temporal_window_t{n_source}_len16_starts"].tolist()
        assert list(window_starts(16, n_source)) == expected


def test_repeat_frames_by_hand_and_as_the_reference(shared: Path) -> None:
    assert repeat_frames(12).tolist() == [0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11]
    for key, expected in golden(shared, "data_repeat_frames").items():
        _, divisor, n_frames = key.split("/")
        found = repeat_frames(int(n_frames[1:]), int(divisor[1:]))
        np.testing.assert_array_equal(found, expected, err_msg=key)


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_an_empty_source_is_refused(sampling: Sampling) -> None:
    with pytest.raises(DataError, match="0 frames"):
        frame_indices(ClipSpec(sampling=sampling), 0)
