"""Whether bouts were found: runs of clips with a class, said and true, that are mostly the same ones.

A true bout is found by a said one when they share more than half of what either covers: then no other can
find it too, and a bout that is said in pieces is not. This is F1@50 of segmentation (Lea et al. 2017).
"""

import numpy as np
from jaxtyping import Bool, Int64, Integer

from readouts.metrics.decisions import Decisions


def bout_decisions(
    said: Bool[np.ndarray, "clips O"],
    labels: Integer[np.ndarray, "clips O"],
    begins: Bool[np.ndarray, " clips"],
) -> Decisions:
    """Bouts that were found, said in vain, and missed, of each output.

    Args:
        said: of clips in the order of time.
        labels: of the same.
        begins: whether a clip does not follow the one before it: no bout goes on over that.
    """
    columns = zip(said.T, labels.T > 0, strict=True)
    counts = [_counts(runs(of_class, begins), runs(true, begins)) for of_class, true in columns]
    hits, n_said, n_true = (np.array(of, np.float64) for of in zip(*counts, strict=True))
    return Decisions(hits=hits, false_alarms=n_said - hits, misses=n_true - hits)


def runs(flags: Bool[np.ndarray, " clips"], begins: Bool[np.ndarray, " clips"]) -> Int64[np.ndarray, "n 2"]:
    """First clip of each run, and the clip after its last."""
    follows = np.append(False, flags[:-1]) & ~begins
    goes_on = np.append(flags[1:] & ~begins[1:], False)
    return np.stack([np.flatnonzero(flags & ~follows), np.flatnonzero(flags & ~goes_on) + 1], axis=1)


def _counts(said: Int64[np.ndarray, "n 2"], true: Int64[np.ndarray, "m 2"]) -> tuple[int, int, int]:
    if not len(said) or not len(true):
        return 0, len(said), len(true)
    # One that shares more than half of the union covers the true one's middle.
    middle = true.sum(axis=1) / 2
    found = said[np.maximum(np.searchsorted(said[:, 0], middle, side="right") - 1, 0)]
    shared = np.minimum(found[:, 1], true[:, 1]) - np.maximum(found[:, 0], true[:, 0])
    union = np.maximum(found[:, 1], true[:, 1]) - np.minimum(found[:, 0], true[:, 0])
    return int((2 * shared > union).sum()), len(said), len(true)
