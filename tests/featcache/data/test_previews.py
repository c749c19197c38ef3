"""Contact strips: which clips, and that a strip shows its frames in order."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image

from featcache.data.previews import FRAMES_PER_STRIP, N_PREVIEWS, STRIP_HEIGHT, clip_strip, preview_clips


def test_previews_are_spread_over_the_split() -> None:
    assert preview_clips(1) == [0]
    assert preview_clips(5) == [0, 1, 2, 3, 4]
    spread = preview_clips(1_000)
    assert (len(spread), spread[0], spread[-1]) == (N_PREVIEWS, 0, 999)


def test_a_strip_shows_evenly_spaced_frames_in_order() -> None:
    # Frame i is grey level i / 15; frames 0, 2, 4, 6, 9, 11, 13, 15 are shown.
    pixels = (torch.arange(16.0) / 15)[:, None, None, None].expand(16, 3, 32, 32)
    image = np.asarray(Image.open(BytesIO(clip_strip(pixels))).convert("L"), dtype=float)
    assert image.shape == (STRIP_HEIGHT, FRAMES_PER_STRIP * STRIP_HEIGHT)
    shown = image.reshape(STRIP_HEIGHT, FRAMES_PER_STRIP, STRIP_HEIGHT).mean(axis=(0, 2))
    assert np.allclose(shown, np.array([0, 2, 4, 6, 9, 11, 13, 15]) * 17, atol=2)
    assert Image.open(BytesIO(clip_strip(pixels, 224))).size == (FRAMES_PER_STRIP * 224, 224)
