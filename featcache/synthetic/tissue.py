"""Soft tissue under an endoscope that drifts, in the layout of STIR: 512 x 512 RGB, points at start and end.

Every frame is one still texture, bent: tools pull at four positions, breathing widens the whole, the camera
drifts. The bend says where a pixel's tissue lies at rest; where a resting point is seen is that equation,
solved to far below a hundredth of a pixel. Highlights are the lamp's and stay put: following them is wrong.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8

from featcache.manifest import Dataset
from featcache.synthetic.base import stream
from featcache.synthetic.drawing import grain, mottle
from featcache.synthetic.motion import PIXELS, drift, encode_frame, light, sample
from featcache.synthetic.records import encode_sequence_example
from featcache.synthetic.videos import VideoSet

NAME = "stir"
SIDE = 512
"""Rows and columns of the stored frames; the points count in shares of 1280 x 1024."""
MARGIN = 88
"""Pixels of tissue painted on each side of the resting frame."""
N_FRAMES = (18, 40)
N_POINTS = (4, 24)
FRAME_RATE = 4.0
"""Frames a second, for `duration`."""
N_PULLS = 4
PULL, BREATH = 11.0, 0.008
"""Largest pull in 1280 x 1024 pixels, and largest widening in shares of the frame."""
BORDER = 0.05
"""Share of the frame at its edges in which no start point lies."""
MISSED = 0.3
"""Share of the videos in which one or two points were found only at one of the two ends."""
QUALITY = 85

Ends = tuple[Float[np.ndarray, "P 2"], Float[np.ndarray, "Q 2"]]
"""Start and end points (x, y) in shares of the frame. Rows do not match, and counts may differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bend:
    """How the tissue seen in each frame is displaced from its rest; all lengths in shares of the frame."""

    drift: Float[np.ndarray, "F 2"]
    breath: Float[np.ndarray, "F"]
    """Widening about the middle of the frame."""
    positions: Float[np.ndarray, "K 2"]
    widths: Float[np.ndarray, "K"]
    """Middle and standard deviation of each Gaussian pull."""
    pulls: Float[np.ndarray, "F K 2"]

    def displacement(
        self, frame: int, x: Float[np.ndarray, "..."], y: Float[np.ndarray, "..."]
    ) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
        """How far the tissue seen at (x, y) is from its rest; x and y broadcast, a grid is [1 X], [Y 1]."""
        # Python's own floats, since they leave a grid of float32 what it is.
        (drift_x, drift_y), breath = self.drift[frame].tolist(), float(self.breath[frame])
        by_x, by_y = drift_x + breath * (x - 0.5), drift_y + breath * (y - 0.5)
        bumps = zip(self.positions.tolist(), self.widths.tolist(), self.pulls[frame].tolist(), strict=True)
        for position, width, pull in bumps:
            along, down = (
                np.exp(-0.5 * ((v - p) / width) ** 2) for v, p in zip((x, y), position, strict=True)
            )
            by_x = by_x + (pull[0] * along) * down
            by_y = by_y + (pull[1] * along) * down
        return by_x, by_y

    def rest(self, frame: int, seen: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P 2"]:
        """Where the tissue seen at `seen` lies at rest."""
        return np.asarray(seen - np.stack(self.displacement(frame, *seen.T), axis=1))

    def seen(self, frame: int, rest: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P 2"]:
        """Where tissue that rests at `rest` is seen: the fixed point of x = rest + displacement(x).

        The displacement changes by less than 0.4 a unit of length, so 30 rounds leave less than 1e-12.
        """
        position = rest
        for _ in range(30):
            position = rest + np.stack(self.displacement(frame, *position.T), axis=1)
        return np.asarray(position)


def draw(rng: np.random.Generator) -> tuple[list[UInt8[np.ndarray, "Y X C"]], Ends]:
    """The 18 to 40 frames of one video, and its points."""
    n_frames = int(rng.integers(N_FRAMES[0], N_FRAMES[1] + 1))
    bend = random_bend(rng, np.linspace(0.0, 1.0, n_frames))
    ends = random_ends(rng, bend)
    tissue, shine = paint(rng), highlights(rng)[..., None]
    noise = grain(rng, n_frames, SIDE, SIDE, sigma=2.0)
    frames = [finish(bent(tissue, bend, frame), shine, noise[frame]) for frame in range(n_frames)]
    return frames, ends


def random_bend(rng: np.random.Generator, times: Float[np.ndarray, "F"]) -> Bend:
    """Drift, breathing and four slow pulls at `times` from 0 to 1."""
    cycles, phase = rng.uniform(0.3, 1.0, N_PULLS + 1), rng.random(N_PULLS + 1)
    waves = np.sin(2 * np.pi * (np.outer(times, cycles) + phase))
    reach = rng.uniform(-PULL, PULL, (N_PULLS, 2)) / PIXELS
    return Bend(
        drift=drift(rng, times),
        breath=rng.uniform(0.2, 1.0) * BREATH * waves[:, -1],
        positions=rng.uniform(0.1, 0.9, (N_PULLS, 2)),
        widths=rng.uniform(0.12, 0.22, N_PULLS),
        pulls=waves[:, :-1, None] * reach,
    )


def random_ends(rng: np.random.Generator, bend: Bend) -> Ends:
    """4 to 24 points in the first frame and where they are in the last, in order of height at each end."""
    n_points = rng.integers(N_POINTS[0], N_POINTS[1] + 1)
    start = rng.uniform(BORDER, 1 - BORDER, (8 * n_points, 2))
    end = bend.seen(-1, bend.rest(0, start))
    stays = np.flatnonzero(((end > 0.0) & (end < 1.0)).all(axis=1))[:n_points]
    both = [start[stays], end[stays]]
    if rng.random() < MISSED:
        side, n_missed = rng.integers(2), rng.integers(1, 3)
        both[side] = rng.permutation(both[side])[n_missed:]
    first, last = (points[np.argsort(points[:, 1])].astype(np.float32) for points in both)
    return first, last


def paint(rng: np.random.Generator) -> Float32[np.ndarray, "Y X C"]:
    """The resting tissue with `MARGIN` on each side: blots of all sizes, and dark vessels."""
    side = SIDE + 2 * MARGIN
    shares = (np.arange(side, dtype=np.float32) + 0.5 - MARGIN) / SIDE
    blots = ((90.0, 3.0), (36.0, 4.0), (14.0, 4.0), (5.0, 3.0))
    flesh = sum(level * mottle(rng, side, side, cell=cell) for cell, level in blots)
    veins = np.maximum(
        _vessels(rng, side, cell=150.0, width=0.05), _vessels(rng, side, cell=60.0, width=0.04)
    )
    colour = light(rng, shares[None, :], shares[:, None])
    colour += np.multiply.outer(flesh, np.array([1.0, 0.8, 0.7], np.float32))
    colour -= np.multiply.outer(veins, np.array([36.0, 32.0, 24.0], np.float32))
    return np.asarray(colour, dtype=np.float32)


def bent(tissue: Float32[np.ndarray, "H W C"], bend: Bend, frame: int) -> Float32[np.ndarray, "Y X C"]:
    """The tissue as seen in one frame: each pixel asks where its tissue rests."""
    shares = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    x, y = shares[None, :], shares[:, None]
    by_x, by_y = bend.displacement(frame, x, y)
    return sample(tissue, (x - by_x) * SIDE + MARGIN, (y - by_y) * SIDE + MARGIN)


def highlights(rng: np.random.Generator) -> Float32[np.ndarray, "Y X"]:
    """Opacity of the lamp's reflections: small sharp blots that stay where they are in the frame."""
    x = np.arange(SIDE, dtype=np.float32)
    cover = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(rng.integers(5, 11)):
        (x0, y0), (a, b) = rng.uniform(20, SIDE - 20, 2), rng.uniform(3.0, 9.0, 2)
        level = 1.4 * np.multiply.outer(np.exp(-(((x - y0) / b) ** 2)), np.exp(-(((x - x0) / a) ** 2)))
        cover = np.maximum(cover, level.astype(np.float32))
    return np.minimum(cover, np.float32(0.9))


def finish(
    picture: Float32[np.ndarray, "Y X C"],
    shine: Float32[np.ndarray, "Y X 1"],
    noise: Float32[np.ndarray, "Y X"],
) -> UInt8[np.ndarray, "Y X C"]:
    """The picture with reflections and the camera's noise, in whole grey levels."""
    picture += shine * (250.0 - picture)
    picture += noise[..., None] + np.float32(0.5)
    return np.asarray(np.clip(picture, 0.0, 255.0), dtype=np.uint8)


def record(split: str, index: int, *, seed: int, dataset: Dataset) -> bytes:
    """One serialised SequenceExample, under the manifest's keys."""
    frames, (first, last) = draw(stream(seed, NAME, split, index))
    key = dataset.features
    return encode_sequence_example(
        context={
            key["start_x"]: first[:, 0],
            key["start_y"]: first[:, 1],
            key["end_x"]: last[:, 0],
            key["end_y"]: last[:, 1],
            key["video"]: np.array([index], np.int64),
            key["duration"]: np.array([len(frames) / FRAME_RATE], np.float32),
        },
        sequences={key["image"]: [(encode_frame(frame, quality=QUALITY),) for frame in frames]},
    )


def _vessels(rng: np.random.Generator, side: int, *, cell: float, width: float) -> Float32[np.ndarray, "Y X"]:
    """Winding lines: where smooth noise is close to zero."""
    return np.asarray(np.exp(-((mottle(rng, side, side, cell=cell) / np.float32(width)) ** 2)))


TISSUE = VideoSet(
    name=NAME,
    version=1,
    make=record,
    profiles={"demo": {"full_val": 16, "test": 16}, "tiny": {"full_val": 2, "test": 2}},
    n_shards={"full_val": 3, "test": 3},
    empty_shard={"full_val": 1, "test": 2},
)
