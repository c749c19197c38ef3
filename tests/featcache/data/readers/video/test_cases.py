"""Small videos of what people's recordings look like, each against what FFmpeg's command line shows of it."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.clips import Clip
from featcache.data.readers import UnreadableFileError, open_reader
from featcache.data.readers.base import Reader
from tests.featcache.data.readers.video.small_videos import dataset

FOLDER = Path(__file__).resolve().parents[6] / "shared" / "cases" / "videos"
BROKEN = ("trunc", "corrupt", "cut_", "noise", "broken")
"""How the names of files begin that are not whole."""


def cases() -> list[str]:
    """All files of the folder of which the truth is known, those too that were put there later."""
    truth = FOLDER / "truth.json"
    return sorted(json.loads(truth.read_text())) if truth.is_file() else ["none"]


@pytest.fixture(params=cases())
def case(request: pytest.FixtureRequest, shared: Path) -> tuple[str, dict[str, Any]]:
    """Name and truth of a file."""
    if not (FOLDER / request.param).is_file():
        pytest.skip(f"no {request.param} in {shared}/cases/videos")
    return request.param, json.loads((FOLDER / "truth.json").read_text())[request.param]


def number_of(pixels: np.ndarray) -> int:
    """The number that a frame carries: a bit in each of the first twelve of 4 x 4 cells."""
    cells = cells_of(pixels).mean(-1)
    return sum(1 << i for i in range(12) if cells[i] > 128)


def cells_of(pixels: np.ndarray) -> np.ndarray:
    """Mean RGB [cell, channel] of the middles of 4 x 4 cells."""
    height, width = (n // 4 for n in pixels.shape[:2])
    return np.array(
        [
            pixels[y + height // 4 : y + 3 * height // 4, x + width // 4 : x + 3 * width // 4].mean((0, 1))
            for y in range(0, 4 * height, height)
            for x in range(0, 4 * width, width)
        ]
    )


def reader_and_clip(name: str) -> tuple[Reader, Clip]:
    reader = open_reader(dataset(files=name), "all", FOLDER)
    return reader, reader.scan(skip_bad=True).index.clip(0)


def test_frames_are_those_shown_by_each_way_of_reaching_them(case: tuple[str, dict[str, Any]]) -> None:
    name, truth = case
    reader, clip = reader_and_clip(name)
    n_frames = len(truth["numbers"])
    assert clip.n_source == n_frames
    turned = name.startswith("rot")  # Its numbers, read from turned cells, hang on the grey one's last digit.
    wanted = np.array(truth["numbers"]) & (~8 if turned else ~0)

    def check(reader: Reader, frames: Sequence[int]) -> None:
        pixels = reader.read(clip, frames)
        assert list(pixels.shape[1:3]) == truth["shape"]
        found = np.array([number_of(frame) for frame in pixels]) & (~8 if turned else ~0)
        np.testing.assert_array_equal(found, wanted[list(frames)], err_msg=f"{name}, {frames}")

    def fresh() -> Reader:
        return open_reader(dataset(files=name), "all", FOLDER)

    check(fresh(), range(n_frames))
    np.testing.assert_allclose(cells_of(reader.read(clip, [0])[0]), truth["cells"], atol=2.5)
    backwards = fresh()
    for frame in range(n_frames - 1, -1, -5):
        check(backwards, [frame])
    clips = fresh()
    for first in range(0, n_frames, 9):
        check(clips, range(first, min(n_frames, first + 16)))
    rng = np.random.default_rng(0)
    for first in rng.integers(0, n_frames, 20):
        check(clips, [min(n_frames - 1, int(first) + 2 * i) for i in range(8)])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda frame: check(clips, [frame]), rng.integers(0, n_frames, 30).tolist()))


def test_whole_files_are_taken_and_others_never_in_silence(case: tuple[str, dict[str, Any]]) -> None:
    name, truth = case
    reader = open_reader(dataset(files=name), "all", FOLDER)
    if not name.startswith(BROKEN):
        # Of what FFmpeg complains of, some is whole all the same: a stream that begins between keyframes.
        scan = reader.scan(skip_bad=bool(truth["ffmpeg_says"]))
        assert not scan.lenient or "other numbers" in scan.notes[0]
        return
    with pytest.raises(UnreadableFileError, match=rf"{name}: it is (damaged|cut short): .*--skip-bad"):
        reader.scan()
    scan = reader.scan(skip_bad=True)
    assert scan.lenient
    assert "other numbers than in the whole video" in scan.notes[0]
