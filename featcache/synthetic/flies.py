"""Pairs of fruit flies in a dish, in the layout of Fly-vs-Fly: 144 x 144 RGB, 7 classes, several at a time.

Each behaviour has its twin among the other classes. A lunge played backward is a retreat, circling in random
order is none: the same frames, so only their order tells. Wings that threaten or vibrate, and contact that is
tussle or copulation, are matched by the same poses with folded wings or at a distance: only appearance tells.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float, Float32, UInt8

from featcache.synthetic.behaviour import N_FRAMES, BehaviourClips, Order, Recipe, wander
from featcache.synthetic.drawing import Angles, Canvas, Point, Points, beside, grain, mottle

SIDE = 144
CENTRE = np.array([71.5, 71.5])
DISH_RADIUS = 69.0
CONTACT = 22.0
"""Pixels from centre to centre of a fly and another that it has run into."""
DASH = 8.0
"""Pixels a frame of a lunge: about a quarter of a fly."""
WINGS_FOLDED, WINGS_THREAT, WING_SONG = 0.18, 0.9, 1.35
"""Radians between a wing and the line along the back."""
LEGS = ((6.5, 0.75), (2.0, 1.55), (-2.6, 2.35))
"""Where each pair of legs leaves the body (pixels ahead of its centre), and its angle from the heading."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fly:
    """Where one fly is in each frame, and what its wings and legs do."""

    position: Points
    heading: Angles
    left_wing: Angles
    right_wing: Angles


Pair = tuple[Fly, Fly]
Behaviour = Callable[[np.random.Generator], Pair]


def lunge(rng: np.random.Generator) -> Pair:
    """The first fly dashes at the other for 3 or 4 frames and stays in contact."""
    first, n_frames = rng.integers(4, 10), rng.integers(3, 5)
    gap = CONTACT + DASH * np.clip(first + n_frames - np.arange(N_FRAMES), 0, n_frames)
    return _facing(rng, gap)


def threat(rng: np.random.Generator, *, wings: float = WINGS_THREAT) -> Pair:
    """The first fly stands in front of the other with both wings raised."""
    actor, other = _facing(rng, np.full(N_FRAMES, rng.uniform(30.0, 46.0)))
    raised = np.full(N_FRAMES, wings * rng.uniform(0.9, 1.1))
    return replace(actor, left_wing=raised, right_wing=raised), other


def song(rng: np.random.Generator, *, wing: float = WING_SONG) -> Pair:
    """The first fly follows the other closely and vibrates one extended wing."""
    actor, other = _facing(rng, np.full(N_FRAMES, rng.uniform(26.0, 36.0)), walk=rng.uniform(0.4, 1.5))
    return _singing(rng, actor, wing), other


def circling(rng: np.random.Generator, *, wing: float = WINGS_FOLDED) -> Pair:
    """The first fly runs around the other, facing it, at a constant rate."""
    other = _standing(rng, _somewhere(rng, 12.0), rng.uniform(-np.pi, np.pi))
    rate = rng.uniform(0.30, 0.42) * rng.choice([-1.0, 1.0])
    bearing = rng.uniform(-np.pi, np.pi) + rate * np.arange(N_FRAMES)
    position = beside(other.position, bearing, rng.uniform(26.0, 31.0))
    actor = _fly(rng, position, bearing + np.pi + rng.normal(0.0, 0.1))
    return (_singing(rng, actor, wing) if wing > WINGS_FOLDED else actor), other


def tussle(rng: np.random.Generator, *, gap: float = 15.0) -> Pair:
    """Both flies roll around each other, in contact."""
    middle = _somewhere(rng, 12.0) + np.cumsum(rng.normal(0.0, 1.2, (N_FRAMES, 2)), axis=0)
    bearing = rng.uniform(-np.pi, np.pi) + np.cumsum(rng.normal(0.0, 0.9, N_FRAMES))
    headings = bearing + rng.uniform(-1.2, 1.2, (2, N_FRAMES))
    actor = _fly(rng, beside(middle, bearing, -gap / 2), headings[0])
    return actor, _fly(rng, beside(middle, bearing, gap / 2), headings[1] + np.pi)


def copulation(rng: np.random.Generator, *, gap: float = 16.0) -> Pair:
    """The first fly sits on the back of the other; both keep still."""
    heading = rng.uniform(-np.pi, np.pi)
    other = _standing(rng, _somewhere(rng, 12.0), heading)
    actor = _standing(rng, beside(other.position, other.heading, -gap)[0], heading + rng.normal(0.0, 0.06))
    return actor, other


def indifferent(rng: np.random.Generator) -> Pair:
    """Both flies walk their own ways, apart."""
    bearing = rng.uniform(-np.pi, np.pi)
    sides = beside(np.tile(CENTRE, (2, 1)), np.array([bearing, bearing + np.pi]), rng.uniform(30.0, 42.0))
    return _walking(rng, sides[0]), _walking(rng, sides[1])


def without_contact(rng: np.random.Generator) -> Pair:
    """The motion of a tussle or a copulation, at a distance; or two flies that ignore each other."""
    kind = rng.integers(3)
    if kind == 2:
        return indifferent(rng)
    return tussle(rng, gap=rng.uniform(50.0, 64.0)) if kind else copulation(rng, gap=rng.uniform(44.0, 60.0))


def draw(behaviour: Behaviour, rng: np.random.Generator) -> UInt8[np.ndarray, "F Y X"]:
    """The frames of one clip of `behaviour`."""
    pair = behaviour(rng)
    canvas = Canvas(_dish(rng), N_FRAMES)
    shade = rng.uniform(50.0, 64.0)
    for fly in pair[::-1]:
        _draw_fly(canvas, fly, shade=shade)
    return canvas.frames(grain(rng, N_FRAMES, SIDE, SIDE, sigma=1.8))


def _fly(rng: np.random.Generator, position: Points, heading: Angles) -> Fly:
    """A fly with folded wings and the small unrest of a living one."""
    folded = np.full(N_FRAMES, WINGS_FOLDED)
    return Fly(
        position=position + rng.normal(0.0, 0.2, position.shape),
        heading=heading + rng.normal(0.0, 0.02, N_FRAMES),
        left_wing=folded,
        right_wing=folded,
    )


def _standing(rng: np.random.Generator, position: Point, heading: float) -> Fly:
    return _fly(rng, np.tile(position, (N_FRAMES, 1)), np.full(N_FRAMES, heading))


def _walking(rng: np.random.Generator, start: Point) -> Fly:
    return _fly(rng, *wander(rng, start, sway=0.12, pace=(0.6, 2.0)))


def _facing(rng: np.random.Generator, gap: Float[np.ndarray, "F"], *, walk: float = 0.0) -> Pair:
    """The first fly looks at the other from `gap` pixels away; both move on at `walk` pixels a frame."""
    bearing = rng.uniform(-np.pi, np.pi)
    start = _somewhere(rng, 12.0) - 0.5 * gap.mean() * np.array([np.cos(bearing), np.sin(bearing)])
    way = np.full(N_FRAMES, rng.uniform(-np.pi, np.pi))
    trail = beside(np.tile(start, (N_FRAMES, 1)), way, walk * (np.arange(N_FRAMES) - N_FRAMES / 2))
    other = _fly(
        rng,
        beside(trail, np.full(N_FRAMES, bearing), gap.mean()),
        np.full(N_FRAMES, rng.uniform(-np.pi, np.pi)),
    )
    aim = np.full(N_FRAMES, bearing)
    actor = _fly(rng, beside(other.position, aim, -gap), aim + rng.normal(0.0, 0.12))
    return actor, other


def _singing(rng: np.random.Generator, fly: Fly, wing: float) -> Fly:
    # Drawn for folded wings too: a twin must take the same random numbers.
    vibration = 0.15 * rng.standard_normal(N_FRAMES)
    wings = np.full(N_FRAMES, wing) + (vibration if wing > WINGS_FOLDED else 0.0)
    return replace(fly, left_wing=wings) if rng.random() < 0.5 else replace(fly, right_wing=wings)


def _somewhere(rng: np.random.Generator, reach: float) -> Point:
    """A point of the dish within `reach` pixels of its centre."""
    bearing, distance = rng.uniform(-np.pi, np.pi), reach * np.sqrt(rng.random())
    return np.asarray(CENTRE + distance * np.array([np.cos(bearing), np.sin(bearing)]))


def _dish(rng: np.random.Generator) -> Float32[np.ndarray, "Y X"]:
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    squared = (columns - CENTRE[0]) ** 2 + (rows - CENTRE[1]) ** 2
    off = np.sqrt(squared) - DISH_RADIUS
    floor = rng.uniform(205.0, 222.0) + 3.0 * mottle(rng, SIDE, SIDE, cell=9.0)
    tilt = rng.uniform(-6.0, 6.0, 2)
    floor += tilt[0] * (columns / SIDE - 0.5) + tilt[1] * (rows / SIDE - 0.5)
    ring = 55.0 * np.exp(-0.5 * (off / 1.6) ** 2) + 12.0 / (1.0 + np.exp(-off))
    return np.asarray(floor - ring, dtype=np.float32)


def _draw_fly(canvas: Canvas, fly: Fly, *, shade: float) -> None:
    along = partial(beside, fly.position, fly.heading)
    for forward, angle in LEGS:
        for side in (1.0, -1.0):
            _draw_leg(canvas, along(forward, 4.0 * side), fly.heading - side * angle, side, shade)
    canvas.ellipse(along(-6.5), fly.heading, (11.0, 6.2), shade=shade, glow=14.0)
    for side, wing in ((1.0, fly.left_wing), (-1.0, fly.right_wing)):
        backward = fly.heading + np.pi + side * wing
        middle = beside(along(4.0, 2.0 * side), backward, 13.5)
        canvas.ellipse(middle, backward, (14.5, 5.2), shade=95.0, opacity=0.6)
    canvas.ellipse(along(6.0), fly.heading, (7.8, 6.0), shade=shade - 12.0, glow=12.0)
    canvas.ellipse(along(14.0), fly.heading, (3.6, 5.0), shade=shade - 5.0)


def _draw_leg(canvas: Canvas, hip: Points, angle: Angles, side: float, shade: float) -> None:
    knee = beside(hip, angle, 5.8)
    canvas.stroke(hip, knee, 1.4, shade=shade + 25.0, opacity=0.8)
    canvas.stroke(knee, beside(knee, angle - side * 0.5, 5.8), 1.0, shade=shade + 40.0, opacity=0.7)


def _recipe(scene: str, behaviour: Behaviour, *labels: str, order: Order = "forward") -> Recipe:
    return Recipe(
        scene=scene, draw=partial(draw, behaviour), labels=labels or ("not_interacting",), order=order
    )


FLIES = BehaviourClips(
    name="flyvsfly",
    quality=90,
    recipes=(
        _recipe("lunge a", lunge, "lunging"),
        _recipe("lunge a", lunge, order="backward"),
        _recipe("lunge b", lunge, "lunging"),
        _recipe("lunge b", lunge, order="backward"),
        _recipe("threat a", threat, "wing_threat"),
        _recipe("threat b", threat, "wing_threat"),
        _recipe("song", song, "wing_extension"),
        _recipe("circle", circling, "circling"),
        _recipe("circle", circling, order="shuffled"),
        _recipe("circle and song", partial(circling, wing=WING_SONG), "circling", "wing_extension"),
        _recipe("circle and song", partial(circling, wing=WING_SONG), "wing_extension", order="shuffled"),
        _recipe("tussle a", tussle, "tussling"),
        _recipe("tussle b", tussle, "tussling"),
        _recipe("pair a", copulation, "copulation"),
        _recipe("pair b", copulation, "copulation"),
        _recipe("threat a", partial(threat, wings=WINGS_FOLDED)),
        _recipe("song", partial(song, wing=WINGS_FOLDED)),
        _recipe("apart", without_contact),
    ),
)

FLY_VIDEOS = FLIES.shards(
    demo={"train": 432, "val": 90, "test": 126}, tiny={"train": 36, "val": 18, "test": 18}
)
