"""Tracks against the pictures they belong to, visibility against who is on top."""

from dataclasses import replace

import numpy as np
import pytest
import simplejpeg

from featcache.data.readers.sequence_example.tensors import parse_tensor
from featcache.data.readers.sequence_example.wire import feature_values, parse_sequence_example
from featcache.manifest import load_manifest
from featcache.synthetic import scenes
from featcache.synthetic.base import stream
from featcache.synthetic.motion import sample

MOVI = load_manifest().dataset("movi")
FEATURES = ("image/encoded", "tracks/2d", "tracks/visibility")


def scene_and_tracks(seed: int, n_tracks: int = 600) -> tuple[scenes.Scene, scenes.Tracks]:
    rng = stream("test", seed)
    scene = scenes.random_scene(rng)
    return scene, scenes.random_tracks(scene, rng, n_tracks)


def steps_of(record: bytes) -> dict[str, list[bytes]]:
    steps = parse_sequence_example(record, FEATURES).steps
    return {name: [bytes(feature_values(step)[0]) for step in steps[name]] for name in steps}  # type: ignore[index]


def test_a_record_holds_what_its_keys_say() -> None:
    record = scenes.record("train", 3, seed=0, dataset=MOVI)
    assert record == scenes.record("train", 3, seed=0, dataset=MOVI)
    assert record != scenes.record("train", 4, seed=0, dataset=MOVI)
    assert record != scenes.record("train", 3, seed=1, dataset=MOVI)
    steps = steps_of(record)
    assert {name: len(blobs) for name, blobs in steps.items()} == dict.fromkeys(FEATURES, 24)
    frame = simplejpeg.decode_jpeg(steps["image/encoded"][0])
    assert frame.shape == (256, 256, 3)
    rng = stream(0, "movi", "train", 3)
    scene = scenes.random_scene(rng)
    tracks = scenes.random_tracks(scene, rng)
    assert np.abs(frame.astype(float) - scenes.draw(scene, rng)[0]).mean() < 4.0
    for t in (0, 23):
        position, visible = (parse_tensor(memoryview(steps[name][t])) for name in FEATURES[1:])
        np.testing.assert_allclose(position * 256, tracks.position[t], atol=1 / 500)
        np.testing.assert_array_equal(visible, tracks.visible[t])


@pytest.mark.parametrize("seed", range(2))
def test_a_visible_point_keeps_its_colour(seed: int) -> None:
    scene, tracks = scene_and_tracks(seed)
    frames = scenes.draw(scene, stream("noise")).astype(np.float32)
    position = tracks.position.astype(np.float32)
    colours = np.stack([sample(frame, p[:, 0], p[:, 1]) for frame, p in zip(frames, position, strict=True)])
    shown = tracks.visible[..., None]
    mean = (colours * shown).sum(axis=0) / shown.sum(axis=0)
    off = np.abs(colours - mean).mean(axis=2)[tracks.visible]
    assert np.median(off) < 2.5  # noise of 1.5 grey levels, and what two bilinear samplings lose of the sand
    assert np.quantile(off, 0.97) < 10.0  # the rest lies on soft edges
    moved = np.abs(np.roll(colours, 1, axis=1) - mean).mean(axis=2)[tracks.visible]
    assert np.median(moved) > 10.0


def on_top(scene: scenes.Scene) -> np.ndarray:
    """Number of the thing on top in each pixel (0 the ground), drawn in flat colours; -1 on soft edges."""
    picture = np.zeros((scenes.N_FRAMES, scenes.SIDE, scenes.SIDE, 3), np.float32)
    for number, thing in enumerate(scene.things, start=1):
        scenes._blend(picture, replace(thing, paint=np.full_like(thing.paint, number)))
    grey = picture[..., 0]
    return np.where(np.abs(grey - np.rint(grey)) < 1e-3, np.rint(grey), -1).astype(int)


@pytest.mark.parametrize("seed", range(3))
def test_visibility_is_being_on_top_and_inside(seed: int) -> None:
    scene, tracks = scene_and_tracks(seed)
    inside = np.all((tracks.position >= 0) & (tracks.position < scenes.SIDE), axis=2)
    assert not tracks.visible[~inside].any()
    column, row = np.moveaxis(np.clip(tracks.position, 0, scenes.SIDE - 1).astype(int), -1, 0)
    top = on_top(scene)[scenes.EVERY, row, column]
    agree, covered = [], []
    for point, shown in enumerate(tracks.visible.T):
        clear = inside[:, point] & (top[:, point] >= 0)
        if not (clear & shown).any():
            continue  # on an edge for ever
        owner = np.bincount(top[clear & shown, point]).argmax()
        agree.extend(top[clear & shown, point] == owner)
        covered.extend(top[clear & ~shown, point] > owner)
    assert np.mean(agree) > 0.99
    assert np.mean(covered) > 0.95
    assert len(covered) > 20


def test_tracks_vary_as_those_of_movi_do() -> None:
    visible = np.stack([scene_and_tracks(seed)[1].visible for seed in range(6)])
    hidden_first = ~visible[:, 0]
    assert 0.01 < hidden_first.mean() < 0.25
    assert visible.any(axis=1).all()  # each was born somewhere
    occluded_between = visible[:, :-2] & ~visible[:, 1:-1]
    assert occluded_between.any(axis=(1, 2)).all()


def test_a_thing_turns_about_its_centre() -> None:
    thing = scenes.Thing(
        outline="box",
        radii=np.array([4.0, 2.0]),
        centre=np.tile([10.0, 20.0], (scenes.N_FRAMES, 1)),
        angle=np.linspace(0.0, np.pi / 2, scenes.N_FRAMES),
        paint=np.zeros((12, 12, 3), np.float32),
    )
    corner = thing.seen(np.array([[4.0, 2.0]]))
    np.testing.assert_allclose(corner[[0, -1], 0], [[14.0, 22.0], [8.0, 24.0]], atol=1e-12)
    np.testing.assert_allclose(thing.own(corner), np.tile([4.0, 2.0], (scenes.N_FRAMES, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(thing.level(np.array([[4.0, 0.0], [2.0, 1.0], [0.0, 3.0]])), [1.0, 0.5, 1.5])
