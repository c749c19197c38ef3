"""What a row is: the same questions, put to a store of clips and to one of distinct frames."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featcache.spec import TokenGrid
from featcache.store.rows import FrameTable, Rows

GRID = TokenGrid(steps=2, rows=4, columns=5, channels=6)
# Clip 0 has the frames a, b; clip 1 b, c; clip 2 a, a.
KEYS = np.frombuffer(b"".join(bytes([letter]) * 16 for letter in b"abbcaa"), np.uint8).reshape(3, 1, 2, 16)
TABLE = FrameTable.of_keys(KEYS)
CLIPS = Rows(grid=GRID, n_clips=3, n_views=2)
FRAMES = Rows(grid=GRID, n_clips=3, n_views=1, n_frames=3, table=TABLE)
IDS = ["x", "y", "z"]


def test_frames_are_numbered_as_they_appear() -> None:
    assert TABLE.numbers.tolist() == [[[0, 1]], [[1, 2]], [[0, 0]]]
    assert TABLE.n_frames == 3
    assert TABLE.first_occurrence.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 1]]


@given(st.lists(st.integers(0, 5), min_size=12, max_size=12))
def test_equal_frames_and_only_those_have_one_number(frames: list[int]) -> None:
    keys = np.zeros((2, 3, 2, 16), np.uint8)
    keys[..., 9] = np.array(frames, np.uint8).reshape(2, 3, 2)
    table = FrameTable.of_keys(keys)
    numbers = table.numbers.ravel()
    assert np.array_equal(numbers[:, None] == numbers, np.array(frames)[:, None] == np.array(frames))
    clips = table.first_occurrence[:, 0]
    assert (np.diff(clips) >= 0).all()
    for number, place in enumerate(table.first_occurrence):
        assert table.numbers[tuple(place)] == number


def test_a_clip_is_a_row_with_a_chunk_for_each_view() -> None:
    assert (CLIPS.axis, CLIPS.n_rows, CLIPS.chunks_per_row, CLIPS.n_chunks) == ("clip", 3, 2, 6)
    assert (CLIPS.row_shape, CLIPS.chunk_shape) == ((2, 2, 4, 5, 6), (2, 4, 5, 6))
    assert CLIPS.row_bytes == 2 * 2 * 2 * 4 * 5 * 6
    assert CLIPS.chunks_of(np.array([2, 0]), np.array([1, 0])).tolist() == [5, 0]
    assert CLIPS.first_rows(np.array([2, 0])).tolist() == [2, 0]
    assert CLIPS.chunks_per_pass(16) == 1
    columns = CLIPS.location_columns(2, range(len(IDS)))
    assert (columns["shard"].tolist(), columns["position"].tolist()) == ([0, 0, 1], [0, 1, 0])


def test_a_frame_is_a_row_of_one_chunk_and_every_step_is_one_of_them() -> None:
    assert (FRAMES.axis, FRAMES.n_rows, FRAMES.chunks_per_row, FRAMES.n_chunks) == ("frame", 3, 1, 3)
    assert (FRAMES.row_shape, FRAMES.chunk_shape) == ((1, 1, 4, 5, 6), (4, 5, 6))
    assert FRAMES.row_bytes == 2 * 4 * 5 * 6
    assert FRAMES.chunks_of(np.array([1, 2]), np.array([0, 0])).tolist() == [1, 2, 0, 0]
    assert FRAMES.first_rows(np.array([1, 2])).tolist() == [1, 0]
    assert FRAMES.chunks_per_pass(16) == 16
    assert FRAMES.location_columns(2, range(len(IDS))) == {}


def test_tokens_by_chunk_are_the_same_memory() -> None:
    tokens = np.zeros((3, *GRID.shape))
    by_frame = FRAMES.by_chunk(tokens)
    by_frame[3] = 1
    assert by_frame.shape == (6, 1, 4, 5, 6)
    assert tokens[1, 1].all() and tokens.sum() == 4 * 5 * 6
    assert CLIPS.by_chunk(tokens) is tokens


def test_rows_are_named_by_their_clip() -> None:
    assert CLIPS.describe(1, "clip {}".format) == "clip 1"
    assert FRAMES.describe(2, "clip {}".format) == "frame 2 (step 1 of clip 1)"


def test_skipped_rows_come_back_with_their_reasons() -> None:
    of_clips = CLIPS.skipped({1: "broken"}, IDS.__getitem__)
    assert of_clips == {"skipped_clips": [{"clip": 1, "id": "y", "reason": "broken"}]}
    assert CLIPS.skipped_in(of_clips) == {1: "broken"}
    of_frames = FRAMES.skipped({0: "black", 1: "broken"}, IDS.__getitem__)
    assert FRAMES.skipped_in(of_frames) == {0: "black", 1: "broken"}
    assert of_frames["skipped_clips"] == [
        {"clip": 0, "id": "x", "reason": "it shows frame 0: black"},
        {"clip": 1, "id": "y", "reason": "it shows frame 1: broken"},
        {"clip": 2, "id": "z", "reason": "it shows frame 0: black"},
    ]
