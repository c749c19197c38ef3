"""Textured things drifting over a ground, in the layout of MOVi-E: 24 x 256 x 256 RGB and 2048 point tracks.

Ground and things drift as one, and each thing slides, hops and turns a little by itself. A track is born at a
random position of a random frame and stays glued to what lies on top there: its path is exact in every frame,
it is hidden where something passes over it or the frame ends, and some tracks are hidden in the first frame.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Integer, UInt8

from featcache.manifest import Dataset
from featcache.synthetic.base import stream
from featcache.synthetic.drawing import grain, mottle
from featcache.synthetic.motion import PIXELS, drift, encode_frame, light, sample
from featcache.synthetic.records import encode_sequence_example, encode_tensor
from featcache.synthetic.videos import VideoSet

NAME = "movi"
SIDE = 256
N_FRAMES, WINDOW = 24, 16
"""Frames of a video, and of the clip in whose time `motion.drift` counts."""
EVERY = np.arange(N_FRAMES)[:, None]
"""All frames, for all points: an index of shape [F, 1]."""
MARGIN = 44
"""Pixels of ground painted on each side of the frame."""
N_THINGS = (4, 8)
RADIUS = (14.0, 32.0)
"""Half length and half width of a thing, in pixels."""
SLIDE, HOP, TURN = 30.0, 25.0, 0.8
"""Largest own motion of a thing in the time of a clip: 1280 x 1024 pixels twice, and radians."""
SHADE = 22.0
"""Largest difference in grey levels between a thing and the light."""
N_TRACKS = 2048
STEP = 2.0**-16
"""Coordinates are rounded to this share of the frame, 1/256 pixel: half their bits are zero and pack away."""
QUALITY = 88

NORMS = {"ellipse": np.hypot, "box": np.maximum, "diamond": np.add}
"""Outline of a thing: where this norm of its coordinates, in units of its radii, is 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One rigid thing: outline, paint, and its position in each frame, in pixels (first centre at 0.5)."""

    outline: str
    radii: Float[np.ndarray, "2"]
    centre: Float[np.ndarray, "F 2"]
    angle: Float[np.ndarray, "F"]
    paint: Float32[np.ndarray, "H W C"]
    """The middle of the paint is the thing's own."""

    def own(
        self, position: Float[np.ndarray, "*N 2"], frame: Integer[np.ndarray, "..."] = EVERY
    ) -> Float[np.ndarray, "*N 2"]:
        """Places of the frames in the thing's own coordinates, in which it neither moves nor turns."""
        return _turned(position - self.centre.astype(position.dtype)[frame], -self.angle[frame])

    def seen(self, own: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "F P 2"]:
        """Where the thing's own positions are in every frame."""
        return np.asarray(_turned(own, self.angle[EVERY]) + self.centre[EVERY])

    def level(self, own: Float[np.ndarray, "*N 2"]) -> Float[np.ndarray, "*N"]:
        """Up to 1 inside of the outline, above outside."""
        x, y = rearrange(np.abs(own) / self.radii.astype(own.dtype), "... xy -> xy ...")
        return np.asarray(NORMS[self.outline](x, y))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A ground and the things on it, the last on top."""

    drift: Float[np.ndarray, "F 2"]
    """Position of the ground in each frame, in pixels."""
    ground: Float32[np.ndarray, "H W C"]
    things: tuple[Thing, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracks:
    """Paths of points and where they are seen."""

    position: Float[np.ndarray, "F P 2"]
    """x, y in pixels, the first one's centre at 0.5; may leave the frame."""
    visible: Bool[np.ndarray, "F P"]


def random_scene(rng: np.random.Generator) -> Scene:
    """A ground with 4 to 8 things."""
    times = np.arange(N_FRAMES) / (WINDOW - 1)
    path = drift(rng, times) * SIDE
    ground = _ground(rng)
    n_things = rng.integers(N_THINGS[0], N_THINGS[1] + 1)
    return Scene(
        drift=path, ground=ground, things=tuple(_thing(rng, times, path, ground) for _ in range(n_things))
    )


def draw(scene: Scene, rng: np.random.Generator) -> UInt8[np.ndarray, "F Y X C"]:
    """The frames, with the camera's noise."""
    frames = np.stack([_ground_at(scene.ground, shift) for shift in scene.drift])
    for thing in scene.things:
        _blend(frames, thing)
    for frame, noise in zip(frames, grain(rng, N_FRAMES, SIDE, SIDE, sigma=1.5), strict=True):
        frame += noise[..., None] + np.float32(0.5)
    return np.asarray(np.clip(frames, 0.0, 255.0), dtype=np.uint8)


def random_tracks(scene: Scene, rng: np.random.Generator, n_tracks: int = N_TRACKS) -> Tracks:
    """Points born at random positions and frames, glued to what lies on top there."""
    born, position = rng.integers(N_FRAMES, size=n_tracks), rng.uniform(0.0, SIDE, (n_tracks, 2))
    owner = np.full(n_tracks, -1)
    path = position - scene.drift[born] + scene.drift[EVERY]
    for number, thing in enumerate(scene.things):
        own = thing.own(position, born)
        hit = thing.level(own) <= 1.0
        owner[hit] = number
        path[:, hit] = thing.seen(own[hit])
    visible = ((path >= 0.0) & (path < SIDE)).all(axis=2)
    for number, thing in enumerate(scene.things):
        visible &= (owner >= number) | (thing.level(thing.own(path)) > 1.0)
    return Tracks(position=path, visible=visible)


def record(split: str, index: int, *, seed: int, dataset: Dataset) -> bytes:
    """One serialised SequenceExample: JPEG frames, and each frame's tracks as two serialised tensors."""
    rng = stream(seed, NAME, split, index)
    scene = random_scene(rng)
    tracks = random_tracks(scene, rng)
    position = (np.rint(tracks.position / SIDE / STEP) * STEP).astype(np.float32)
    key = dataset.features
    return encode_sequence_example(
        context={},
        sequences={
            key["image"]: [(encode_frame(frame, quality=QUALITY),) for frame in draw(scene, rng)],
            key["tracks"]: [(encode_tensor(step),) for step in position],
            key["visibility"]: [(encode_tensor(step),) for step in tracks.visible.astype(np.float32)],
        },
    )


def _ground(rng: np.random.Generator) -> Float32[np.ndarray, "H W C"]:
    """Flagstones of two greys under fine sand, in the scene's light."""
    side = SIDE + 2 * MARGIN
    shares = (np.arange(side, dtype=np.float32) + 0.5 - MARGIN) / SIDE
    stones = 5.0 * np.tanh(6.0 * mottle(rng, side, side, cell=9.0))
    sand = 5.0 * mottle(rng, side, side, cell=3.0) + 2.0 * mottle(rng, side, side, cell=40.0)
    return light(rng, shares[None, :], shares[:, None]) + (stones + sand)[..., None]


def _thing(
    rng: np.random.Generator,
    times: Float[np.ndarray, "F"],
    path: Float[np.ndarray, "F 2"],
    ground: Float32[np.ndarray, "H W C"],
) -> Thing:
    """A thing somewhere on the ground, of the light's colour there and a shade of its own."""
    home = rng.uniform(0.05, 0.95, 2) * SIDE
    since = (times - times.mean())[:, None]
    slide = rng.uniform(-SLIDE, SLIDE, 2) / PIXELS * SIDE
    hops = np.abs(np.sin(np.pi * (rng.uniform(0.5, 1.5) * times + rng.random())))
    height = rng.choice([0.0, 1.0]) * rng.uniform(0.3, 1.0) * HOP / PIXELS[1] * SIDE
    radii = rng.uniform(*RADIUS, 2)
    column, row = (home + MARGIN).astype(int)
    shade = rng.uniform(-SHADE, SHADE, 3).astype(np.float32)
    return Thing(
        outline=str(rng.choice(list(NORMS))),
        radii=radii,
        centre=home + path + slide * since - np.outer(height * hops, [0.0, 1.0]),
        angle=rng.uniform(-np.pi, np.pi) + rng.uniform(-TURN, TURN) * since[:, 0],
        paint=_paint(rng, 2 * ceil(radii.max()) + 4, ground[row, column] + shade),
    )


def _paint(
    rng: np.random.Generator, side: int, colour: Float32[np.ndarray, "C"]
) -> Float32[np.ndarray, "H W C"]:
    """Stripes and blots of one colour."""
    along = rng.choice([-1.0, 1.0], 2) * rng.uniform(0.2, 0.7, 2).astype(np.float32)
    x = np.arange(side, dtype=np.float32)
    stripes = 8.0 * np.sin(along[0] * x[None, :] + along[1] * x[:, None])
    blots = stripes + 6.0 * mottle(rng, side, side, cell=6.0)
    return np.asarray(colour + blots[..., None], dtype=np.float32)


def _ground_at(
    ground: Float32[np.ndarray, "H W C"], shift: Float[np.ndarray, "2"]
) -> Float32[np.ndarray, "Y X C"]:
    """The ground moved by `shift` pixels: one bilinear weight for the whole frame."""
    column, row = np.floor(MARGIN - shift).astype(int)
    right, down = (MARGIN - shift - (column, row)).astype(np.float32)
    part = ground[row : row + SIDE + 1, column : column + SIDE + 1]
    part = part[:, :-1] + right * (part[:, 1:] - part[:, :-1])
    return np.asarray(part[:-1] + down * (part[1:] - part[:-1]))


def _blend(frames: Float32[np.ndarray, "F Y X C"], thing: Thing) -> None:
    """Paint `thing` into the frames, all at once, within a window around it; its edge is a pixel soft."""
    half = ceil(np.hypot(*thing.radii)) + 1
    y, x = np.mgrid[-half:half, -half:half]
    middle = np.clip(np.rint(thing.centre).astype(np.int64), half, SIDE - half)
    columns, rows = (middle[:, i, None] + rearrange(v, "y x -> 1 (y x)") for i, v in enumerate((x, y)))
    own = thing.own(np.stack([columns, rows], axis=-1).astype(np.float32) + np.float32(0.5))
    edge = (1.0 - thing.level(own)) * np.float32(thing.radii.min())
    cover = rearrange(np.clip(edge + np.float32(0.5), 0.0, 1.0), "f p -> f p 1")
    middle_of_paint = np.float32(len(thing.paint) / 2)
    under = frames[EVERY, rows, columns]
    under += cover * (sample(thing.paint, *rearrange(own + middle_of_paint, "f p xy -> xy f p")) - under)
    frames[EVERY, rows, columns] = under


def _turned(
    position: Float[np.ndarray, "*N 2"], angle: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "*M 2"]:
    """Places turned about the origin, from the x axis towards the y axis."""
    cos, sin = np.cos(angle).astype(position.dtype), np.sin(angle).astype(position.dtype)
    x, y = position[..., 0], position[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


SCENES = VideoSet(
    name=NAME,
    version=1,
    make=record,
    profiles={"demo": {"train": 128}, "tiny": {"train": 4}},
    n_shards={"train": 4},
    empty_shard={"train": 2},
)
