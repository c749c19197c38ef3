"""What a run says of single clips, yes or no: the clips it was scored on, with thresholds chosen on val."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer

from featcache.errors import StoreError
from readouts.metrics.decisions import best_thresholds
from readouts.results.per_clip import read_per_clip, read_predictions
from readouts.results.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """Every clip of a split with what a readout says of it and what is true."""

    clips: Int64[np.ndarray, " n"]
    """Their numbers in the split."""
    ids: list[str]
    scores: Float[np.ndarray, "n O"]
    """Probabilities."""
    labels: Integer[np.ndarray, "n O"]


def evaluated(folder: RunFolder, readout: str, role: str) -> Evaluated:
    """What a run that predicts labels kept of a split.

    Raises:
        StoreError: it kept nothing, of fewer clips than there are, or no labels; or a file is damaged.
    """
    clips, statistics = read_per_clip(folder, readout, role)
    table, outputs = read_predictions(folder, role)
    if "labels" not in statistics or readout not in outputs or outputs[readout].shape != (
        statistics["labels"].shape
    ):  # fmt: skip
        raise StoreError(
            f"run {folder.run} kept no labels and outputs of all clips of {role}: only runs that predict "
            "classes have thresholds."
        )
    logits = outputs[readout].astype(np.float64)
    return Evaluated(
        clips=clips,
        ids=table.column("id").cast("string").to_pylist(),
        scores=(1 / (1 + np.exp(-logits))).astype(np.float32),
        labels=statistics["labels"],
    )


def val_thresholds(folder: RunFolder, readout: str) -> Float64[np.ndarray, " O"]:
    """The probability at which each class counts as there: that of the best F1 on the clips of val.

    NaN of a class that val does not have.

    Raises:
        StoreError: as `evaluated`.
    """
    found = evaluated(folder, readout, "val")
    return best_thresholds(found.scores, found.labels)
