"""What a run says of single clips, yes or no: the clips it was scored on, with thresholds chosen on val."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer

from featcache.errors import StoreError
from featcache.manifest import OWN_VIDEOS
from featcache.store.feature_store import FeatureStore
from readouts.metrics.bouts import bout_decisions
from readouts.metrics.decisions import Decisions, best_thresholds, macro_f1
from readouts.results.per_clip import read_per_clip, read_predictions
from readouts.results.run_folder import RunFolder
from readouts.results.significance.bootstrap import Clusters, WeightedScore


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Every clip of a split with what a readout says of it and what is true."""

    clips: Int64[np.ndarray, " n"]
    """Their numbers in the split."""
    ids: list[str]
    scores: Float[np.ndarray, "n O"]
    """Probabilities."""
    labels: Integer[np.ndarray, "n O"]

    def said(self, thresholds: Float64[np.ndarray, " O"]) -> Bool[np.ndarray, "n O"]:
        """Which classes reach their threshold; one of NaN is never said."""
        found: np.ndarray = self.scores >= thresholds
        return found

    @cached_property
    def losses(self) -> Float64[np.ndarray, " n"]:
        """Cross-entropy of each clip, over its classes."""
        there = np.clip(self.scores.astype(np.float64), 1e-7, 1 - 1e-7)
        found: np.ndarray = -np.where(self.labels > 0, np.log(there), np.log1p(-there)).sum(axis=1)
        return found


def evaluated(folder: RunFolder, readout: str, role: str) -> Evaluated:
    """What a run that predicts labels kept of a split.

    Raises:
        StoreError: it kept nothing, of fewer clips than there are, or no labels; or a file is damaged.
    """
    clips, statistics = read_per_clip(folder, readout, role)
    table, outputs = read_predictions(folder, role)
    labels, logits = statistics.get("labels"), outputs.get(readout)
    if labels is None or logits is None or logits.shape != labels.shape:
        raise StoreError(
            f"run {folder.run} kept no labels and outputs of all clips of {role}: only runs that predict "
            "classes have thresholds."
        )
    ids = table.column("id").cast("string").to_pylist()
    return Evaluated(clips=clips, ids=ids, scores=probabilities(logits), labels=labels)


def probabilities(logits: Float[np.ndarray, "n O"]) -> Float[np.ndarray, "n O"]:
    """Those of the labels whose logits a readout gives."""
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def val_thresholds(folder: RunFolder, readout: str) -> Float64[np.ndarray, " O"]:
    """The probability at which each class counts as there: that of the best F1 on the clips of val.

    NaN of a class that val does not have.

    Raises:
        StoreError: as `evaluated`.
    """
    found = evaluated(folder, readout, "val")
    return best_thresholds(found.scores, found.labels)


def decision_scores(
    of: Mapping[str, tuple[Float[np.ndarray, "n O"], Integer[np.ndarray, "n O"]]],
    names: list[str],
    background: str | None,
) -> dict[str, dict[str, float]]:
    """Role -> `macro_F1` and `<class>_F1` of each class that has one, at thresholds chosen on val.

    Args:
        of: role (val among them) -> logits and labels.
        names: of the classes.
        background: the class that no mean includes.
    """
    thresholds = best_thresholds(probabilities(of["val"][0]), of["val"][1])
    left_out = [number for number, name in enumerate(names) if name == background]
    found = {}
    for role, (logits, labels) in of.items():
        f1 = Decisions.of(probabilities(logits) >= thresholds, labels).f1
        scores = {f"{name}_F1": float(value) for name, value in zip(names, f1, strict=True)}
        scores["macro_F1"] = macro_f1(f1, left_out)
        found[role] = {name: value for name, value in scores.items() if not np.isnan(value)}
    return found


def weighted_macro_f1(
    found: Evaluated, thresholds: Float64[np.ndarray, " O"], clusters: Clusters, left_out: list[int]
) -> WeightedScore:
    """The macro F1 of resamples of clusters: counts of each are summed up once, not clip by clip."""
    _, first, which = np.unique(clusters.of_clip, return_index=True, return_inverse=True)
    said, true = found.said(thresholds), found.labels > 0
    sums = [
        np.stack([np.bincount(which, of_class, minlength=len(first)) for of_class in of.T], axis=1)
        for of in (said & true, said & ~true, ~said & true)
    ]

    def score(weights: np.ndarray) -> float:
        hits, false_alarms, misses = (weights[first] @ of for of in sums)
        return macro_f1(Decisions(hits=hits, false_alarms=false_alarms, misses=misses).f1, left_out)

    return score


def found_bouts(
    found: Evaluated, thresholds: Float64[np.ndarray, " O"], store: FeatureStore
) -> Decisions | None:
    """Bouts of clips that follow one another in a video; None where a store's clips are not cut from such."""
    if store.parts.get("decoding", {}).get("reader") != OWN_VIDEOS:
        return None
    about = store.clip_table.take(found.clips, "source", "record")
    source = np.unique(about.column(0).to_numpy(), return_inverse=True)[1]
    first = about.column(1).to_numpy()
    order = np.lexsort((first, source))
    source, first = source[order], first[order]
    steps = np.diff(first)
    inside = np.diff(source) == 0
    if not inside.any():
        return None
    # What was left out between two clips may have been anything.
    usual = steps[inside].min()
    begins = np.append(True, ~inside | (steps > usual))
    return bout_decisions(found.said(thresholds)[order], found.labels[order], begins)
