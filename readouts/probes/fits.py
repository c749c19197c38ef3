"""Quick looks without training: neighbours, logistic and ridge regression on the mean token of each clip.

They take one pass over each store and seconds after that, so they say within a coffee whether features hold
anything of a task, which layer is worth a readout, and how much of a readout's score is there in the mean
token. Outputs have the form a head's have, and the task's own metric scores them.

- `PROBES`: name -> probe, with its settings and what it can be asked to predict.
- `fit_probe`: fit on one split, outputs for another.
- `pool_split`, `fit_pooled`: the two halves of it, for several probes of the same features.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil, isfinite
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.errors import CallError, ScividError
from featcache.system.console import Progress, silent
from readouts.features.batches import Batch, evaluation_batches, training_batches
from readouts.features.splits import FeatureSplit, draws_of
from readouts.tasks.base import Task
from readouts.tokens.prepared import prepared

BATCH = 64
"""Clips read at a time."""

QUERIES_AT_ONCE = 1_024
"""Clips whose neighbours are looked for at a time: a block of similarities is this by the training clips."""

_SMALLEST_SHARE = 1e-6
"""Frequencies of 0 and 1 become logits of -13.8 and 13.8."""

_SMALLEST_DEVIATION = 1e-6
"""Of a channel that is constant in training, which then is 0 and not noise."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pooled:
    """One split in memory: the mean token of each clip, and what is to be predicted of it."""

    clips: Int64[np.ndarray, " n"]
    features: Float[np.ndarray, "n C"]
    truth: Float[np.ndarray, "n O"] | None
    """Labels of 0 and 1, or values relative to the task's offset; None where the split has no targets."""
    kind: str | None
    """"labels" or "values", or None."""


Fit = Callable[..., Float[np.ndarray, "n O"]]
"""(x, y, queries, *, device, **settings): standardised training features and truth, features to predict."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A way to predict without training."""

    fit: Mapping[str, Fit]
    """"labels", "values" or both -> how they are predicted."""
    settings: Mapping[str, Any]
    """Setting -> default; all are positive."""

    @property
    def takes(self) -> tuple[str, ...]:
        """What it can predict."""
        return tuple(self.fit)


def fit_probe(
    kind: str,
    train: FeatureSplit,
    evaluated: FeatureSplit,
    task: Task,
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
    device: torch.device,
    progress: Progress = silent,
) -> Float[np.ndarray, "n O"]:
    """Outputs, for the task's metric, of a probe fitted on `train`: a row a usable clip of `evaluated`.

    Rows are in the order of the file. `seed` draws the view of each training clip, one of those that training
    draws from.

    Raises:
        CallError: no such probe or setting, a value out of range, or the probe is not for such a task.
        StoreError: a store is damaged or its targets are not the task's.
    """
    check_probe(kind, settings)
    fitted_on = pool_split(train, task, seed=seed, device=device, progress=progress)
    asked = pool_split(evaluated, task, seed=None, device=device, progress=progress)
    return fit_pooled(kind, fitted_on, asked, settings=settings, device=device)


def check_probe(kind: str, settings: Mapping[str, Any]) -> None:
    """Refuse before hours of reading what would be refused after them.

    Raises:
        CallError: no such probe or setting, or a value out of range.
    """
    if kind not in PROBES:
        raise CallError(f"no probe is called {kind!r}: known are {', '.join(PROBES)}.")
    known = PROBES[kind].settings
    for name, value in settings.items():
        if name not in known:
            raise CallError(f"the {kind} probe has no setting {name}: it has {', '.join(known)}.")
        whole = isinstance(known[name], int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise CallError(f"the {kind} probe's {name}={value!r} must be a {'whole ' * whole}number.")
        if not (isfinite(value) and value > 0):
            raise CallError(f"the {kind} probe's {name}={value} must be above 0.")


def pool_split(
    split: FeatureSplit,
    task: Task,
    *,
    seed: int | None,
    device: torch.device,
    progress: Progress = silent,
) -> Pooled:
    """One pass over a split: of training one view a clip, drawn by `seed`; else (None) view 0."""
    n, done = len(split.usable), 0
    clips, features, truths, kind = [], [], [], None
    for batch in _one_pass(split, task, seed, device):
        clips.append(batch.clips)
        features.append(prepared(batch.tokens).average.cpu().numpy())
        if batch.targets:
            kind, truth = truth_of(batch.targets, task)
            truths.append(truth.cpu().numpy())
        done = min(done + len(batch.clips), n)
        progress("pooling", done, n)
    # The last batch of a training pass may hold the begin of a second one.
    whole = np.concatenate(features)[:n]
    if not np.isfinite(whole).all():
        raise ScividError(
            f"{split.store.path} holds tokens that are not finite: see `scivid validate --full`."
        )
    truth_of_all = np.concatenate(truths)[:n] if truths else None
    return Pooled(clips=np.concatenate(clips)[:n], features=whole, truth=truth_of_all, kind=kind)


def _one_pass(split: FeatureSplit, task: Task, seed: int | None, device: torch.device) -> Iterator[Batch]:
    if seed is None:
        return evaluation_batches(split, task.select, BATCH, device)
    batch = min(BATCH, len(split.usable))
    steps = range(ceil(len(split.usable) / batch))
    return training_batches(split, task.select, draws_of(split, batch=batch, seed=seed), steps, device)


def truth_of(rows: Mapping[str, Tensor], task: Task) -> tuple[str, Float[Tensor, "B O"]]:
    """What there is to predict: "labels" of 0 and 1, or "values" relative to the task's offset.

    Raises:
        CallError: neither is among what the task selects.
    """
    if "labels" in rows:
        return "labels", rows["labels"].float()
    if "future" in rows and rows["future"].ndim == 2:
        return "values", rows["future"] - getattr(task, "offset", 0.0)
    raise CallError(
        f"probes predict labels or a series a clip, and task {task.name} has {', '.join(sorted(rows))}: "
        "train a readout for it."
    )


def fit_pooled(
    kind: str,
    train: Pooled,
    evaluated: Pooled,
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
    device: torch.device,
) -> Float[np.ndarray, "n O"]:
    """Outputs of a probe fitted on `train`, a row a clip of `evaluated`.

    Raises:
        CallError: no such probe or setting, a value out of range, or the probe is not for such a task.
    """
    check_probe(kind, settings)
    probe = PROBES[kind]
    if train.truth is None or train.kind is None:
        raise CallError("a probe needs the targets of the training split: its store has none.")
    if train.kind not in probe.fit:
        fitting = ", ".join(name for name, other in PROBES.items() if train.kind in other.fit)
        raise CallError(
            f"the {kind} probe predicts {' or '.join(probe.takes)}, and this task's targets are "
            f"{train.kind}: those that predict them are {fitting}."
        )
    # In float64: a channel's mean may be thousands of its deviations.
    mean, std = (of(train.features, axis=0, dtype=np.float64) for of in (np.mean, np.std))
    x, queries = (
        ((of.features - mean) / np.maximum(std, _SMALLEST_DEVIATION)).astype(np.float32)
        for of in (train, evaluated)
    )
    chosen = {name: type(default)(settings.get(name, default)) for name, default in probe.settings.items()}
    found = probe.fit[train.kind](x, train.truth, queries, device=device, **chosen)
    outputs: np.ndarray = found.astype(np.float32)
    return outputs


def _label_shares(
    x: np.ndarray, y: np.ndarray, queries: np.ndarray, *, device: torch.device, k: int, temperature: float
) -> Float[np.ndarray, "n O"]:
    """Logits of each label's frequency among the neighbours."""
    return _logit(_neighbour_means(x, y, queries, device, k, temperature))


def _neighbour_values(
    x: np.ndarray, y: np.ndarray, queries: np.ndarray, *, device: torch.device, k: int, temperature: float
) -> Float[np.ndarray, "n O"]:
    return _neighbour_means(x, y, queries, device, k, temperature)


def _neighbour_means(
    x: Float[np.ndarray, "m C"],
    y: Float[np.ndarray, "m O"],
    queries: Float[np.ndarray, "n C"],
    device: torch.device,
    k: int,
    temperature: float,
) -> Float[np.ndarray, "n O"]:
    """Means over the k nearest by cosine (all, where there are fewer), weighted by exp(cosine / temperature).

    Source: Wu et al. 2018, section 3.4.
    """
    normalised = torch.nn.functional.normalize
    known, truth = normalised(torch.from_numpy(x).to(device)), torch.from_numpy(y).double().to(device)
    found = []
    for block in torch.split(torch.from_numpy(queries).to(device), QUERIES_AT_ONCE):
        nearest = (normalised(block) @ known.T).topk(min(k, len(x)), dim=1)
        weights = (nearest.values.double() / temperature).softmax(dim=1)
        found.append(torch.einsum("nk,nko->no", weights, truth[nearest.indices]).cpu().numpy())
    return np.concatenate(found)


def _logistic(
    x: np.ndarray,
    y: np.ndarray,
    queries: np.ndarray,
    *,
    device: torch.device,
    C: float,  # noqa: N803, scikit-learn's name
    max_iter: int,
) -> Float[np.ndarray, "n O"]:
    """One against the rest for each label, by scikit-learn, on the host."""
    # Here and not above: it takes longer to import than all of stage two.
    from sklearn.linear_model import LogisticRegression

    columns = []
    for labels in (y > 0).T:
        if labels.all() or not labels.any():
            # Nothing to fit: the class is always, or never, there.
            columns.append(_logit(np.full(len(queries), float(labels[0]))))
        else:
            model = LogisticRegression(C=C, max_iter=max_iter).fit(x, labels)
            columns.append(model.decision_function(queries))
    return np.stack(columns, axis=1)


def _logit(shares: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    inside = shares.clip(_SMALLEST_SHARE, 1.0 - _SMALLEST_SHARE)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _ridge(
    x: np.ndarray, y: np.ndarray, queries: np.ndarray, *, device: torch.device, alpha: float
) -> Float[np.ndarray, "n O"]:
    """Least squares, plus `alpha` times the squared weights, by scikit-learn, on the host."""
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=alpha, solver="cholesky").fit(x.astype(np.float64), y.astype(np.float64))
    return np.asarray(model.predict(queries.astype(np.float64))).reshape(len(queries), -1)


PROBES: Mapping[str, Probe] = {
    "knn": Probe(
        fit={"labels": _label_shares, "values": _neighbour_values}, settings={"k": 20, "temperature": 0.07}
    ),
    "logistic": Probe(fit={"labels": _logistic}, settings={"C": 1.0, "max_iter": 1_000}),
    "ridge": Probe(fit={"values": _ridge}, settings={"alpha": 100.0}),
}
"""Every probe by its name."""
