"""The bend and its inverse, points that keep their colour, reflections that stay, the record."""

import numpy as np
import pytest
import simplejpeg

from featcache.data.readers.sequence_example.wire import feature_values, parse_sequence_example
from featcache.manifest import load_manifest
from featcache.synthetic import tissue
from featcache.synthetic.base import stream
from featcache.synthetic.motion import PIXELS, sample

STIR = load_manifest().dataset("stir")


def random_bend(seed: int, n_frames: int = 16) -> tissue.Bend:
    return tissue.random_bend(stream("bend", seed), np.linspace(0.0, 1.0, n_frames))


@pytest.mark.parametrize("seed", range(5))
def test_seen_and_rest_undo_each_other(seed: int) -> None:
    bend = random_bend(seed)
    rest = stream(seed).uniform(-0.1, 1.1, (200, 2))
    seen = bend.seen(-1, rest)
    assert np.abs((bend.rest(-1, seen) - rest) * PIXELS).max() < 1e-6
    by_hand = seen[:1] - np.stack(bend.displacement(15, seen[:1, 0], seen[:1, 1]), axis=1)
    np.testing.assert_allclose(by_hand, rest[:1], atol=1e-9)


def test_a_grid_bends_as_its_points_do() -> None:
    bend = random_bend(0)
    x, y = np.linspace(0, 1, 7), np.linspace(0, 1, 5)
    grid = np.stack(bend.displacement(3, x[None, :], y[:, None]), axis=-1)
    points = np.stack(bend.displacement(3, *(v.ravel() for v in np.meshgrid(x, y))), axis=-1)
    np.testing.assert_allclose(grid.reshape(-1, 2), points, atol=1e-15)
    single = bend.displacement(3, x[None, :].astype(np.float32), y[:, None].astype(np.float32))
    assert single[0].dtype == np.float32


def test_one_pull_by_hand() -> None:
    bend = tissue.Bend(
        drift=np.array([[0.0, 0.0], [0.1, -0.2]]),
        breath=np.array([0.0, 0.02]),
        positions=np.array([[0.5, 0.5]]),
        widths=np.array([0.2]),
        pulls=np.array([[[0.0, 0.0]], [[0.01, 0.0]]]),
    )
    by_x, by_y = bend.displacement(1, np.array([0.5, 0.7]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(by_x, [0.11, 0.1 + 0.02 * 0.2 + 0.01 * np.exp(-0.5)])
    np.testing.assert_allclose(by_y, [-0.2, -0.2])


@pytest.mark.parametrize("seed", range(2))
def test_the_tissue_at_a_point_keeps_its_colour(seed: int) -> None:
    rng = stream("colour", seed)
    bend, flesh = random_bend(seed), tissue.paint(rng)
    start = rng.uniform(0.15, 0.85, (300, 2))
    end = bend.seen(-1, bend.rest(0, start))
    pixels = [(512 * position.T).astype(np.float32) for position in (start, end)]
    first, last = (tissue.bent(flesh, bend, frame) for frame in (0, 15))
    colours = sample(first, *pixels[0]), sample(last, *pixels[1])
    still = sample(last, *pixels[0])
    assert np.abs(colours[0] - colours[1]).mean() < 1.0
    assert np.abs(colours[0] - still).mean() > 3.0


def test_points_stay_in_the_frame_and_counts_differ_at_times() -> None:
    counts = []
    for seed in range(60):
        bend = random_bend(seed, 2)
        first, last = tissue.random_ends(stream("ends", seed), bend)
        counts.append((len(first), len(last)))
        for points in (first, last):
            assert points.dtype == np.float32
            assert ((points > 0) & (points < 1)).all()
            assert (np.diff(points[:, 1]) >= 0).all()
        true_end = bend.seen(-1, bend.rest(0, first.astype(np.float64)))
        nearest = np.linalg.norm((true_end[:, None] - last) * PIXELS, axis=2).min(axis=1)
        if len(last) >= len(first):
            assert nearest.max() < 0.01  # pixels of 1280 x 1024
        else:
            assert np.sum(nearest > 0.01) == len(first) - len(last)
    differ = [abs(a - b) for a, b in counts if a != b]
    assert set(differ) == {1, 2}
    assert 6 <= len(differ) <= 36
    assert min(map(max, counts)) >= 4
    assert max(map(max, counts)) <= 24


def test_reflections_stay_where_they_are() -> None:
    shine = tissue.highlights(stream("shine"))
    assert 0.002 < (shine > 0.5).mean() < 0.03
    picture = np.full((512, 512, 3), 100.0, np.float32)
    frame = tissue.finish(picture, shine[..., None], np.zeros((512, 512), np.float32))
    assert frame[shine > 0.85].min() > 225
    assert (frame[shine < 1e-3] == 100).all()


def test_a_record_holds_what_its_keys_say() -> None:
    record = tissue.record("test", 2, seed=0, dataset=STIR)
    assert record == tissue.record("test", 2, seed=0, dataset=STIR)
    assert record != tissue.record("full_val", 2, seed=0, dataset=STIR)
    message = parse_sequence_example(record, STIR.features.values())
    assert not message.other_names
    values = {name: feature_values(value) for name, value in message.context.items()}
    frames, ends = tissue.draw(stream(0, "stir", "test", 2))
    for end, points in zip(("start", "end"), ends, strict=True):
        for axis, name in enumerate("xy"):
            np.testing.assert_array_equal(values[f"{end}ir/object/keypoint/{name}"], points[:, axis])
    np.testing.assert_array_equal(values["vid_idx"], [2])
    n_frames = len(frames)
    np.testing.assert_array_equal(values["duration"], [n_frames / tissue.FRAME_RATE])
    jpegs = [feature_values(step) for step in message.steps["image/encoded"]]
    assert 18 <= len(jpegs) == n_frames <= 40
    assert isinstance(jpegs[-1], list)
    frame = simplejpeg.decode_jpeg(bytes(jpegs[-1][0]))
    assert frame.shape == (512, 512, 3)
    assert np.abs(frame.astype(float) - frames[-1]).mean() < 4.0
