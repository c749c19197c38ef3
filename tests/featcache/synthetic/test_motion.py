"""The drift's law, the light's slopes, sampling; pooled colours of one set teach the other's motion."""

from collections.abc import Callable
from math import log, sqrt

import numpy as np
import pytest
import simplejpeg
from einops import reduce

from featcache.synthetic import scenes, tissue
from featcache.synthetic.base import stream
from featcache.synthetic.motion import (
    GREEN_SLOPE,
    LIGHT,
    PIXELS,
    RED_SLOPE,
    SPEED,
    SWAY,
    drift,
    encode_frame,
    light,
    sample,
)

Probe = tuple[np.ndarray, np.ndarray]
"""Mean colours [F, 2, 2, C] of the 16 frames of a clip, and its mean displacement (x, y) in shares."""


def test_displacements_have_one_law_wherever_and_either_way() -> None:
    times = np.array([0.0, 8.0, 15.0, 23.0]) / 15
    paths = np.stack([drift(stream("path", i), times) for i in range(3000)]) * PIXELS
    np.testing.assert_allclose(paths.mean(axis=1), 0.0, atol=1e-9)
    early, late = paths[:, 2] - paths[:, 0], paths[:, 3] - paths[:, 1]
    # Of a speed drawn evenly on a log scale, along one of two axes.
    spread = sqrt((SPEED[1] ** 2 - SPEED[0] ** 2) / (4 * log(SPEED[1] / SPEED[0])))
    for step in (early, late):
        assert np.abs(step.mean(axis=0)).max() < 3.0
        np.testing.assert_allclose(step.std(axis=0), spread, rtol=0.07)
    length = np.linalg.norm(early, axis=1)
    assert length.max() < SPEED[1] + 4 * SWAY[1]
    middle = sqrt(SPEED[0] * SPEED[1])
    assert 0.93 * middle < np.median(length) < 1.1 * middle


def test_light_rises_to_the_right_and_down() -> None:
    x, y = np.linspace(0, 1, 5, dtype=np.float32)[None, :], np.linspace(0, 1, 3, dtype=np.float32)[:, None]
    colour = light(stream("light"), x, y)
    assert colour.shape == (3, 5, 3)
    np.testing.assert_allclose(np.diff(colour[..., 0], axis=1), RED_SLOPE / 4, rtol=1e-4)
    np.testing.assert_allclose(np.diff(colour[..., 1], axis=0), GREEN_SLOPE / 2, rtol=1e-4)
    assert np.ptp(colour[..., 0], axis=0).max() == np.ptp(colour[..., 1], axis=1).max() == 0.0
    np.testing.assert_allclose(colour[..., 2], LIGHT[2])


def test_sampling_by_hand() -> None:
    texture = np.array([[[0.0], [10.0]], [[20.0], [50.0]]], np.float32)
    x = np.array([0.5, 1.5, 1.0, 0.75, -3.0, 9.0], np.float32)
    y = np.array([0.5, 0.5, 1.0, 1.5, 0.5, 9.0], np.float32)
    np.testing.assert_allclose(sample(texture, x, y)[:, 0], [0.0, 10.0, 20.0, 27.5, 0.0, 50.0], atol=0.1)


def test_a_frame_comes_back_from_its_jpeg() -> None:
    shares = (np.arange(64, dtype=np.float32) + 0.5) / 64
    colour = light(stream("jpeg"), shares[None, :], shares[:, None]).astype(np.uint8)
    back = simplejpeg.decode_jpeg(encode_frame(colour, quality=90))
    assert np.abs(back.astype(int) - colour).mean() < 2.0


def pooled(frame: np.ndarray) -> np.ndarray:
    """The mean colours of a frame's quarters."""
    quarters = "(row y) (column x) c -> row column c"
    return np.asarray(reduce(frame.astype(np.float64), quarters, "mean", row=2, column=2))


def scene_clips(index: int) -> list[Probe]:
    rng = stream(0, "probe", index)
    scene = scenes.random_scene(rng)
    tracks = scenes.random_tracks(scene, rng, 300)
    colours = np.stack([pooled(frame) for frame in scenes.draw(scene, rng)])
    clips = []
    for start in (0, 4, 8):
        both = tracks.visible[start] & tracks.visible[start + 15]
        moved = (tracks.position[start + 15] - tracks.position[start])[both].mean(axis=0) / scenes.SIDE
        clips.append((colours[start : start + 16], moved))
    return clips


def tissue_clip(index: int) -> Probe:
    rng = stream(0, "probe tissue", index)
    bend = tissue.random_bend(rng, np.linspace(0.0, 1.0, 16))
    start = rng.uniform(0.05, 0.95, (20, 2))
    flesh, shine = tissue.paint(rng), tissue.highlights(rng)[..., None]
    noise = np.zeros(shine.shape[:2], np.float32)
    frames = (tissue.finish(tissue.bent(flesh, bend, frame), shine, noise) for frame in range(16))
    moved = (bend.seen(-1, bend.rest(0, start)) - start).mean(axis=0)
    return np.stack([pooled(frame) for frame in frames]), moved


def ridge(clips: list[Probe]) -> Callable[[np.ndarray], np.ndarray]:
    inputs, targets = np.stack([c.ravel() for c, _ in clips]), np.stack([d for _, d in clips])
    middle, mean = inputs.mean(axis=0), targets.mean(axis=0)
    gram = (inputs - middle) @ (inputs - middle).T
    dual = np.linalg.solve(gram + 1e-4 * np.trace(gram) / len(gram) * np.eye(len(gram)), targets - mean)
    weights = (inputs - middle).T @ dual
    return lambda colours: np.asarray((colours.ravel() - middle) @ weights + mean)


def explained(
    predict: Callable[[np.ndarray], np.ndarray], clips: list[Probe], *, shuffled: bool = False
) -> float:
    """Share of the displacements' variance (R2) that `predict` explains."""
    truth = np.stack([moved for _, moved in clips])
    orders = [stream("order", i).permutation(16) if shuffled else np.arange(16) for i in range(len(clips))]
    guess = np.stack([predict(c[order]) for (c, _), order in zip(clips, orders, strict=True)])
    return float(1 - ((guess - truth) ** 2).sum() / ((truth - truth.mean(axis=0)) ** 2).sum())


@pytest.fixture(scope="module")
def held_out() -> list[Probe]:
    return [clip for index in range(100, 106) for clip in scene_clips(index)]


@pytest.fixture(scope="module")
def tissues() -> list[Probe]:
    return [tissue_clip(index) for index in range(6)]


def by_the_law(colours: np.ndarray) -> np.ndarray:
    """Minus the change of the mean colour, over the light's slopes: no training at all."""
    change = (colours[-1] - colours[0]).mean(axis=(0, 1))
    return np.asarray(-change[:2] / np.array([RED_SLOPE, GREEN_SLOPE]))


def test_mean_colours_in_order_give_the_displacement(held_out: list[Probe], tissues: list[Probe]) -> None:
    for clips in (held_out, tissues):
        assert explained(by_the_law, clips) > 0.97
        assert explained(by_the_law, clips, shuffled=True) < 0.2


def test_what_is_learned_on_scenes_holds_on_tissue(held_out: list[Probe], tissues: list[Probe]) -> None:
    predict = ridge([clip for index in range(30) for clip in scene_clips(index)])
    assert explained(predict, held_out) > 0.8
    assert explained(predict, tissues) > 0.6
    assert explained(predict, held_out, shuffled=True) < 0.2
    assert explained(predict, tissues, shuffled=True) < 0.2
