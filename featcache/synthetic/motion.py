"""What the two tracking sets share, so that one can teach the other: the drift of scenes, and their light.

Most of a video's motion is one drift of the whole scene, by the same law for training (scenes) and test
(tissue). The light is the scene's too: red rises to the right and green downward, so the drift can be read
from the pooled colours of a clip, but only from their order in time.
"""

import numpy as np
import simplejpeg
from einops import rearrange
from jaxtyping import Float, Float32, Int32, UInt8

PIXELS = np.array([1280.0, 1024.0])
"""Width and height of the frame whose pixels STIR counts: motion is drawn in them in both sets."""
SPEED = (24.0, 170.0)
"""Least and largest drift in the time of one clip, in those pixels, evenly on a log scale.

With them, the answer that nothing moves has an accuracy of about 0.1 on the tissue: faster than surgery, so
that a readout trained for a minute has something to win.
"""
SWAY = (4.0, 14.0)
"""Amplitude of each of the two slow oscillations on top of it, in the same pixels."""
START = 0.1
"""How far from its middle, in shares of the frame, the camera may stand in the light."""
LIGHT = np.array([158.0, 96.0, 88.0])
"""Mean grey levels of red, green and blue."""
RED_SLOPE, GREEN_SLOPE = 140.0, 115.0
"""Grey levels by which red rises over a frame's width, and green over its height."""


def drift(rng: np.random.Generator, times: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F 2"]:
    """Where the whole scene is at `times` (1 = the length of a 16-frame clip): x, y in shares of the frame.

    A constant velocity and two oscillations of random phase: the displacement between two times has the same
    distribution wherever they lie, and the same one backward. The mean over `times` is 0.
    """
    speed = np.exp(rng.uniform(*np.log(SPEED)))
    path = times[:, None] * speed * _direction(rng)
    for _ in range(2):
        cycles = rng.uniform(0.3, 1.0) * times + rng.random()
        path += rng.uniform(*SWAY) * np.sin(2 * np.pi * cycles)[:, None] * _direction(rng)
    return np.asarray((path - path.mean(axis=0)) / PIXELS)


def light(
    rng: np.random.Generator, x: Float32[np.ndarray, "1 X"], y: Float32[np.ndarray, "Y 1"]
) -> Float32[np.ndarray, "Y X C"]:
    """The colour of the scene at (x, y) in shares of the frame, seen from a random position."""
    start = rng.uniform(-START, START, 2).astype(np.float32)
    red = LIGHT[0] + RED_SLOPE * (x + start[0] - 0.5) + 0 * y
    green = LIGHT[1] + GREEN_SLOPE * (y + start[1] - 0.5) + 0 * x
    return np.stack([red, green, np.full_like(red, LIGHT[2])], axis=-1).astype(np.float32)


def sample(
    texture: Float32[np.ndarray, "Y X C"], x: Float32[np.ndarray, "*N"], y: Float32[np.ndarray, "*N"]
) -> Float32[np.ndarray, "*N C"]:
    """Bilinear values of `texture` at x, y in pixels (the first centre is at 0.5); edges go on for ever."""
    height, width, _ = texture.shape
    x, y = np.clip(x - 0.5, 0, width - 1.001), np.clip(y - 0.5, 0, height - 1.001)
    column, row = x.astype(np.int32), y.astype(np.int32)
    right, down = rearrange(x - column, "... -> ... 1"), rearrange(y - row, "... -> ... 1")
    corner = row * width + column
    flat = rearrange(texture, "y x c -> (y x) c")
    above = _between(flat, corner, right.astype(np.float32))
    below = _between(flat, corner + width, right.astype(np.float32))
    below -= above
    below *= down.astype(np.float32)
    below += above
    return below


def _between(
    flat: Float32[np.ndarray, "K C"], left: Int32[np.ndarray, "*N"], share: Float32[np.ndarray, "*N 1"]
) -> Float32[np.ndarray, "*N C"]:
    """The mix of each pixel `left` and its right neighbour; in place, since memory is what it costs."""
    value = flat.take(left, axis=0, mode="clip")
    step = flat.take(left + 1, axis=0, mode="clip")
    step -= value
    step *= share
    step += value
    return step


def encode_frame(frame: UInt8[np.ndarray, "Y X C"], *, quality: int) -> bytes:
    """One JPEG with colours at half resolution, as cameras write it."""
    pixels = np.ascontiguousarray(frame)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420"))


def _direction(rng: np.random.Generator) -> Float[np.ndarray, "2"]:
    angle = rng.uniform(-np.pi, np.pi)
    return np.array([np.cos(angle), np.sin(angle)])
