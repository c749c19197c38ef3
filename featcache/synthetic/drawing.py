"""Anti-aliased ellipses and strokes on grey clips, with numpy alone.

Each shape is evaluated only in a small window around it, for all frames of a clip at once: exact sub-pixel
positions (a slow animal moves smoothly) at a cost that grows with the animal, not with the picture.
Angles are radians from the x axis towards the y axis, which points down.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from einops import rearrange
from jaxtyping import Float, Float32, Int, UInt8

Points = Float[np.ndarray, "F 2"]
"""A position (x, y) in pixels for each frame; pixel centres are at whole numbers."""
Angles = Float[np.ndarray, "F"]
Point = Float[np.ndarray, "2"]


class Canvas:
    """The frames of one clip while it is being drawn; shapes may leave the picture, but must fit into it."""

    def __init__(self, background: Float32[np.ndarray, "Y X"], n_frames: int) -> None:
        self._grey = np.repeat(background[None], n_frames, axis=0)

    def ellipse(
        self,
        centre: Points,
        heading: Angles,
        radii: tuple[float, float],
        *,
        shade: float,
        glow: float = 0.0,
        opacity: float = 1.0,
    ) -> None:
        """Paint an ellipse: `radii` are half its length and width, `glow` makes the middle lighter."""
        rows, columns, dx, dy = self._window(centre, max(radii))
        cos, sin = (rearrange(f(heading).astype(np.float32), "f -> f 1 1") for f in (np.cos, np.sin))
        along, across = (dx * cos + dy * sin) / radii[0], (dy * cos - dx * sin) / radii[1]
        squared = along * along + across * across
        cover = np.clip((1.0 - np.sqrt(squared)) * min(radii) + 0.5, 0.0, 1.0) * opacity
        self._blend(rows, columns, cover, shade + glow * (1.0 - squared))

    def stroke(self, start: Points, end: Points, width: float, *, shade: float, opacity: float = 1.0) -> None:
        """Paint a straight line with round ends."""
        reach = float(np.abs(end - start).max()) / 2 + width
        rows, columns, dx, dy = self._window((start + end) / 2, reach)
        half = rearrange(((end - start) / 2).astype(np.float32), "f xy -> xy f 1 1")
        share = (dx * half[0] + dy * half[1]) / np.maximum(half[0] ** 2 + half[1] ** 2, 1e-6)
        share = np.clip(share, -1.0, 1.0)
        distance = np.hypot(dx - share * half[0], dy - share * half[1])
        self._blend(rows, columns, np.clip(width / 2 + 0.5 - distance, 0.0, 1.0) * opacity, shade)

    def frames(self, grain: Sequence[Float32[np.ndarray, "Y X"]]) -> UInt8[np.ndarray, "F Y X"]:
        """The finished pictures, with the camera's noise of each frame added."""
        pictures = np.empty(self._grey.shape, dtype=np.uint8)
        for picture, grey, noise in zip(pictures, self._grey, grain, strict=True):
            picture[:] = np.clip(grey + (noise + np.float32(0.5)), 0.0, 255.0)
        return pictures

    def _window(
        self, centre: Points, reach: float
    ) -> tuple[
        Int[np.ndarray, "F Y 1"],
        Int[np.ndarray, "F 1 X"],
        Float32[np.ndarray, "F 1 X"],
        Float32[np.ndarray, "F Y 1"],
    ]:
        """Rows and columns of a square with all that is seen of a shape, and offsets from its centre."""
        half = ceil(reach) + 1
        around = np.arange(-half, half + 1)
        size = np.array([self._grey.shape[2], self._grey.shape[1]])
        middle = np.clip(np.rint(centre).astype(np.int64), half, size - 1 - half)
        columns = rearrange(middle[:, :1] + around, "f x -> f 1 x")
        rows = rearrange(middle[:, 1:] + around, "f y -> f y 1")
        position = rearrange(centre, "f xy -> xy f 1 1")
        return (
            rows,
            columns,
            (columns - position[0]).astype(np.float32),
            (rows - position[1]).astype(np.float32),
        )

    def _blend(
        self,
        rows: Int[np.ndarray, "F Y 1"],
        columns: Int[np.ndarray, "F 1 X"],
        cover: Float[np.ndarray, "F Y X"],
        value: Float[np.ndarray, "F Y X"] | float,
    ) -> None:
        frame = np.arange(len(self._grey))[:, None, None]
        under = self._grey[frame, rows, columns]
        under += cover * (value - under)
        self._grey[frame, rows, columns] = under


def beside(position: Points, heading: Angles, forward: float | Angles, left: float | Angles = 0.0) -> Points:
    """The points that lie `forward` and `left` of an animal, in its own frame."""
    cos, sin = np.cos(heading), np.sin(heading)
    return np.asarray(position + np.stack([forward * cos + left * sin, forward * sin - left * cos], axis=1))


def grain(
    rng: np.random.Generator, n_frames: int, height: int, width: int, *, sigma: float
) -> list[Float32[np.ndarray, "Y X"]]:
    """Camera noise in grey levels: windows of one larger noise field, since drawing it all anew is dear."""
    spare = 32
    field = sigma * rng.standard_normal((height + spare, width + spare), dtype=np.float32)
    corners = rng.integers(0, spare, size=(n_frames, 2))
    return [field[y : y + height, x : x + width] for y, x in corners]


def mottle(rng: np.random.Generator, height: int, width: int, *, cell: float) -> Float32[np.ndarray, "Y X"]:
    """Smooth random texture of mean 0 and standard deviation 1, with blots of about `cell` pixels."""
    knots = rng.standard_normal((int(height / cell) + 4, int(width / cell) + 4), dtype=np.float32)
    return _stretch(_stretch(knots, height, cell).T, width, cell).T


def _stretch(knots: Float32[np.ndarray, "K X"], length: int, cell: float) -> Float32[np.ndarray, "Y X"]:
    """Rows of knots `cell` pixels apart to `length` rows: Gaussian weights of the four nearest, of unit norm.

    A sum of products instead of a matrix product, whose threads would fight with ours for the cores.
    """
    position = np.arange(length, dtype=np.float32) / np.float32(cell)
    first = position.astype(np.int64)
    weights = np.exp(-0.5 * ((position - first - np.arange(-1, 3, dtype=np.float32)[:, None]) / 0.6) ** 2)
    weights = (weights / np.linalg.norm(weights, axis=0)).astype(np.float32)
    return np.asarray(sum(weight[:, None] * knots[first + k] for k, weight in enumerate(weights)))
