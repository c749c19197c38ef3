"""Which source frames make a clip: the reference's own rules, down to its off-by-ones."""

from collections.abc import Callable
from math import ceil

import numpy as np
from jaxtyping import Int32

from featcache.spec import ClipSpec, Sampling, require_frames


def frame_indices(spec: ClipSpec, n_source: int, start: int = 0) -> Int32[np.ndarray, " F"]:
    """Source frame numbers of a clip cut from `n_source` frames; short sources repeat their last frame.

    Source: `process_idx` of the reference's readers, modes clip, middle_clip and linspace_clip; a `start`
    other than 0 is that of its random_clip.

    Raises:
        DataError: the source has no frames.
    """
    require_frames(n_source)
    if start:
        assert spec.sampling == "clip", f"{spec.sampling} has no start"
        return _clamped(start + spec.stride * np.arange(spec.n_frames), n_source)
    return _SAMPLERS[spec.sampling](spec.n_frames, spec.stride, n_source)


def repeat_frames(n_frames: int, divisible_by: int = 16) -> Int32[np.ndarray, " F"]:
    """Frame numbers that stretch a clip to the next multiple of `divisible_by` (`RepeatFrames`).

    Nearest neighbour at half-pixel centres, so repeats are spread: 12 frames become 0 1 1 2 3 4 4 5 ...
    """
    require_frames(n_frames)
    stretched = ceil(n_frames / divisible_by) * divisible_by
    return _clamped(np.floor((np.arange(stretched) + 0.5) * n_frames / stretched), n_frames)


def _clip(n_frames: int, stride: int, n_source: int) -> Int32[np.ndarray, " F"]:
    return _clamped(stride * np.arange(n_frames), n_source)


def _middle_clip(n_frames: int, stride: int, n_source: int) -> Int32[np.ndarray, " F"]:
    margin = max(0, (n_source - n_frames * stride) // 2)
    # The end is inclusive in the reference, so the spacing is a little wider than the stride.
    return _clamped(np.linspace(margin, n_source - margin, n_frames), n_source)


def _linspace_clip(n_frames: int, stride: int, n_source: int) -> Int32[np.ndarray, " F"]:
    del stride
    return _clamped(np.rint(np.linspace(0, n_source - 1, n_frames)), n_source)


_SAMPLERS: dict[Sampling, Callable[[int, int, int], Int32[np.ndarray, " F"]]] = {
    "clip": _clip,
    "middle_clip": _middle_clip,
    "linspace_clip": _linspace_clip,
}


def _clamped(frames: np.ndarray, n_source: int) -> Int32[np.ndarray, " F"]:
    return np.minimum(frames.astype(np.int32), n_source - 1)
