"""Tokens that say which clip and view they are of."""

import numpy as np


def numbered(n_clips: int, n_views: int) -> np.ndarray:
    """Tokens [clip, view, 2, 2, 2, 3] whose every value is 10 * clip + view."""
    value = 10 * np.arange(n_clips)[:, None] + np.arange(n_views)
    return np.broadcast_to(value[:, :, None, None, None, None], (n_clips, n_views, 2, 2, 2, 3)).astype(
        np.float32
    )


def one_hot(n_clips: int) -> np.ndarray:
    return np.eye(7, dtype=np.int64)[np.arange(n_clips) % 7]
