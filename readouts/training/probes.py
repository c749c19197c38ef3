"""Probes: readouts that are fitted at once on the mean token of each clip, and take no training step.

They take one pass over each store and seconds after that, so they say within a coffee whether features hold
anything of a task, which layer is worth a readout, and how much of a readout's score is there in the mean
token. Outputs have the form a head's have, and the task's own scores judge them.

- `PROBES`: name -> probe, with its settings and what it can be asked to predict.
- `fit_probe`: fit on one split's mean tokens, outputs for another's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from featcache.errors import CallError

QUERIES_AT_ONCE = 1_024
"""Clips whose neighbours are looked for at a time: a block of similarities is this by the training clips."""

_SMALLEST_SHARE = 1e-6
"""Frequencies of 0 and 1 become logits of -13.8 and 13.8."""

_SMALLEST_DEVIATION = 1e-6
"""Taken for that of a channel that is constant in training, which then is 0 and not noise."""

Fit = Callable[..., Float[np.ndarray, "n O"]]
"""(x, y, queries, *, device, **settings): standardised training features and targets, features to predict."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A way to predict without training."""

    fit: Mapping[str, Fit]
    """"labels", "values" or both -> how they are predicted."""
    settings: Mapping[str, int | float]
    """Setting -> default; all are positive."""


def fit_probe(
    kind: str,
    x: Float[np.ndarray, "m C"],
    y: Float[np.ndarray, "m O"],
    predicts: str,
    queries: Float[np.ndarray, "n C"],
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
    device: torch.device,
) -> Float[np.ndarray, "n O"]:
    """The outputs [n O] for `queries` of a probe fitted on `x` and `y`, the mean tokens and targets of clips.

    Args:
        kind: a name of `PROBES`.
        x: mean tokens of the training clips, as they are stored.
        y: their targets: labels of 0 and 1, or values relative to the task's offset.
        predicts: "labels" or "values", what `y` is.
        queries: mean tokens of the clips to predict.
        settings: those that are not to be the probe's defaults.
        device: where neighbours are looked for.

    Raises:
        CallError: the probe does not predict such targets; names those that do.
    """
    probe = PROBES[kind]
    if predicts not in probe.fit:
        fitting = ", ".join(name for name, other in PROBES.items() if predicts in other.fit)
        raise CallError(
            f"the {kind} probe predicts {' or '.join(probe.fit)}, and this task's targets are {predicts}: "
            f"those that predict them are {fitting}."
        )
    # In float64: a channel's mean may be thousands of its deviations.
    mean, std = (of(x, axis=0, dtype=np.float64) for of in (np.mean, np.std))
    known, asked = (
        ((values - mean) / np.maximum(std, _SMALLEST_DEVIATION)).astype(np.float32) for values in (x, queries)
    )
    found = probe.fit[predicts](known, y, asked, device=device, **{**probe.settings, **settings})
    outputs: np.ndarray = found.astype(np.float32)
    return outputs


def _label_shares(*given: np.ndarray, **settings: Any) -> Float[np.ndarray, "n O"]:
    """Logits of each label's frequency among the neighbours."""
    return _logit(_neighbour_means(*given, **settings))


def _neighbour_means(
    x: Float[np.ndarray, "m C"],
    y: Float[np.ndarray, "m O"],
    queries: Float[np.ndarray, "n C"],
    *,
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
        fit={"labels": _label_shares, "values": _neighbour_means}, settings={"k": 20, "temperature": 0.07}
    ),
    "logistic": Probe(fit={"labels": _logistic}, settings={"C": 1.0, "max_iter": 1_000}),
    "ridge": Probe(fit={"values": _ridge}, settings={"alpha": 100.0}),
}
"""Every probe by its name."""
