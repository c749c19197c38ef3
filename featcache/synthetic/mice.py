"""A black resident and a white intruder on bedding, in the layout of CalMS21: 285 x 512 grey, 4 classes.

Mounting is a smooth thrust along the body; half of the attacks show the very same frames in jumpy order.
Sniffing is an approach that ends nose to body; played backward it is a leaving, which is no interaction. The
other attacks are a tumble, whose twin is the same tumble apart. Mostly, only the order of frames tells.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float32, UInt8

from featcache.synthetic.behaviour import N_FRAMES, BehaviourClips, Order, Recipe, wander
from featcache.synthetic.drawing import Angles, Canvas, Point, Points, beside, grain, mottle

HEIGHT, WIDTH = 285, 512
FLOOR = (40.0, 28.0, 474.0, 262.0)
"""Left, top, right and bottom of the bedding, in pixels."""
CENTRE = np.array([257.0, 145.0])
BODY = (41.0, 21.0)
"""Half length and half width of a mouse, in pixels."""
ROOM = 26.0
"""Pixels that a mouse's centre keeps from the walls."""
THRUST_PERIOD = 8
"""Frames from one thrust of a mount to the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mouse:
    """Where one mouse is in each frame, and how its tail bends."""

    position: Points
    heading: Angles
    bend: Angles
    """Radians by which each piece of the tail turns from the one before it."""


Pair = tuple[Mouse, Mouse]
Behaviour = Callable[[np.random.Generator], Pair]


def mount(rng: np.random.Generator) -> Pair:
    """The resident thrusts on the intruder's back, along its body, with a period of 8 frames."""
    heading = rng.uniform(-np.pi, np.pi)
    intruder = _mouse(rng, np.tile(_somewhere(rng, 0.4), (N_FRAMES, 1)), np.full(N_FRAMES, heading))
    phase = 2 * np.pi * (np.arange(N_FRAMES) / THRUST_PERIOD + rng.random())
    gap = rng.uniform(34.0, 40.0) + rng.uniform(15.0, 19.0) * np.sin(phase)
    position = beside(intruder.position, intruder.heading, -gap)
    return _mouse(rng, position, intruder.heading + rng.normal(0.0, 0.12)), intruder


def tumble(rng: np.random.Generator, *, gap: float = 34.0) -> Pair:
    """Both mice roll around each other, biting."""
    middle = _somewhere(rng, 0.4) + np.cumsum(rng.normal(0.0, 3.0, (N_FRAMES, 2)), axis=0)
    bearing = rng.uniform(-np.pi, np.pi) + np.cumsum(rng.normal(0.0, 0.8, N_FRAMES))
    headings = bearing + rng.uniform(-1.0, 1.0, (2, N_FRAMES))
    resident = _mouse(rng, beside(middle, bearing, -gap / 2), headings[0])
    return resident, _mouse(rng, beside(middle, bearing, gap / 2), headings[1] + np.pi)


def sniff(rng: np.random.Generator) -> Pair:
    """The resident walks up to the intruder and keeps its nose at it."""
    aim = rng.uniform(-np.pi, np.pi)
    intruder = _mouse(
        rng, np.tile(_somewhere(rng, 0.4), (N_FRAMES, 1)), np.full(N_FRAMES, rng.uniform(-np.pi, np.pi))
    )
    arrival, speed = rng.integers(6, 10), rng.uniform(9.0, 13.0)
    gap = 62.0 + speed * np.clip(arrival - np.arange(N_FRAMES), 0, None)
    bearing = np.full(N_FRAMES, aim)
    return _mouse(rng, beside(intruder.position, bearing, -gap), bearing + rng.normal(0.0, 0.1)), intruder


def ignore(rng: np.random.Generator) -> Pair:
    """Both mice walk their own ways, apart."""
    side = rng.choice([-1.0, 1.0])
    starts = CENTRE + side * np.array([[-1.0], [1.0]]) * rng.uniform([80.0, -30.0], [150.0, 30.0])
    return _walking(rng, starts[0]), _walking(rng, starts[1])


def draw(behaviour: Behaviour, rng: np.random.Generator) -> UInt8[np.ndarray, "F Y X"]:
    """The frames of one clip of `behaviour`."""
    resident, intruder = _on_the_floor(behaviour(rng))
    canvas = Canvas(_cage(rng), N_FRAMES)
    _draw_mouse(canvas, intruder, shade=rng.uniform(222.0, 240.0), glow=14.0, ear=205.0, tail=190.0)
    _draw_mouse(canvas, resident, shade=rng.uniform(18.0, 30.0), glow=16.0, ear=70.0, tail=85.0)
    return canvas.frames(grain(rng, N_FRAMES, HEIGHT, WIDTH, sigma=2.0))


def _mouse(rng: np.random.Generator, position: Points, heading: Angles) -> Mouse:
    """A mouse with the small unrest of a living one."""
    bend = rng.uniform(-0.25, 0.25) + 0.1 * np.sin(np.arange(N_FRAMES) * 0.5 + rng.uniform(0.0, 6.0))
    return Mouse(
        position=position + rng.normal(0.0, 0.4, position.shape),
        heading=heading + rng.normal(0.0, 0.02, N_FRAMES),
        bend=bend,
    )


def _walking(rng: np.random.Generator, start: Point) -> Mouse:
    return _mouse(rng, *wander(rng, start, sway=0.15, pace=(0.0, 6.0)))


def _on_the_floor(pair: Pair) -> Pair:
    """The same pair, moved as one so that no mouse walks on the walls."""
    positions = np.concatenate([mouse.position for mouse in pair])
    low, high = np.array(FLOOR[:2]) + ROOM, np.array(FLOOR[2:]) - ROOM
    shift = np.maximum(low - positions.min(axis=0), 0.0) + np.minimum(high - positions.max(axis=0), 0.0)
    first, second = (replace(mouse, position=mouse.position + shift) for mouse in pair)
    return first, second


def _somewhere(rng: np.random.Generator, reach: float) -> Point:
    """A point of the floor, within a share `reach` of the way from its centre to its walls."""
    half = np.array([FLOOR[2] - FLOOR[0], FLOOR[3] - FLOOR[1]]) / 2
    return np.asarray(CENTRE + reach * half * rng.uniform(-1.0, 1.0, 2))


def _cage(rng: np.random.Generator) -> Float32[np.ndarray, "Y X"]:
    """Bright, flaky bedding inside dark walls, and the steel spout of the water bottle on the right."""
    flakes = np.clip(20.0 * mottle(rng, HEIGHT, WIDTH, cell=4.5), -45.0, 60.0)
    bedding = rng.uniform(135.0, 155.0) + flakes + 10.0 * mottle(rng, HEIGHT, WIDTH, cell=60.0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    inside = np.minimum.reduce([columns - FLOOR[0], rows - FLOOR[1], FLOOR[2] - columns, FLOOR[3] - rows])
    floor = 1.0 / (1.0 + np.exp(-np.clip(inside, -30.0, 30.0) / 1.5))
    walls = 62.0 + 8.0 * mottle(rng, HEIGHT, WIDTH, cell=30.0) - 25.0 * np.exp(-0.5 * (inside / 3.0) ** 2)
    spout = np.clip(16.0 - np.maximum(np.abs(columns - 478.0) * 0.7, np.abs(rows - 140.0)), 0.0, 1.0)
    picture = walls + floor * (bedding - walls)
    steel = 95.0 + 90.0 * np.cos((rows - 136.0) / 6.0) ** 2
    return np.asarray(picture + spout * (steel - picture), dtype=np.float32)


def _draw_mouse(canvas: Canvas, mouse: Mouse, *, shade: float, glow: float, ear: float, tail: float) -> None:
    along = partial(beside, mouse.position, mouse.heading)
    _draw_tail(canvas, along(-BODY[0] + 4.0), mouse.heading + np.pi, mouse.bend, tail)
    canvas.ellipse(along(-6.0), mouse.heading, (BODY[0] - 6.0, BODY[1]), shade=shade, glow=glow)
    canvas.ellipse(along(20.0), mouse.heading, (20.0, 15.5), shade=shade, glow=glow)
    canvas.ellipse(along(38.0), mouse.heading, (17.0, 10.0), shade=shade, glow=glow)
    for side in (-1.0, 1.0):
        canvas.ellipse(along(30.0, 11.0 * side), mouse.heading, (5.0, 6.0), shade=ear)


def _draw_tail(
    canvas: Canvas, root: Points, direction: Angles, bend: Angles, shade: float, n_pieces: int = 6
) -> None:
    for piece in range(n_pieces):
        tip = beside(root, direction, 14.0)
        canvas.stroke(root, tip, 5.5 - 0.6 * piece, shade=shade)
        root, direction = tip, direction + bend


def _recipe(scene: str, behaviour: Behaviour, label: str, order: Order = "forward") -> Recipe:
    return Recipe(scene=scene, draw=partial(draw, behaviour), labels=(label,), order=order)


MICE = BehaviourClips(
    name="calms21",
    quality=80,
    recipes=(
        _recipe("mount a", mount, "mounting"),
        _recipe("mount a", mount, "attacking", order="shuffled"),
        _recipe("mount b", mount, "mounting"),
        _recipe("mount b", mount, "attacking", order="shuffled"),
        _recipe("tumble a", tumble, "attacking"),
        _recipe("tumble b", tumble, "attacking"),
        _recipe("tumble a", partial(tumble, gap=150.0), "not interacting"),
        _recipe("sniff a", sniff, "sniffing"),
        _recipe("sniff a", sniff, "not interacting", order="backward"),
        _recipe("sniff b", sniff, "sniffing"),
        _recipe("sniff b", sniff, "not interacting", order="backward"),
        _recipe("apart", ignore, "not interacting"),
    ),
)

MOUSE_VIDEOS = MICE.shards(
    demo={"train": 288, "val": 60, "test": 96}, tiny={"train": 24, "val": 12, "test": 12}
)
