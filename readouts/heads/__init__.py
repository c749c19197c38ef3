"""Readouts: small heads on cached tokens, each a file, all by name in one dict.

- `HEADS`: name -> class, as on the command line; a class says in `gives` what tasks it is for.
- `LAYER_HEADS`: the same, of heads that read several stored layers at once.
- `build_head`: a new head by name, for tokens of a shape, from a seed.
- `settings_of`: what can be set of a head, with the defaults.
- `load_reference`: a head with the parameters of one that the reference implementation (Flax) trained.
"""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import numpy as np
from jaxtyping import Shaped
from torch import Generator, nn

from featcache.errors import CallError
from readouts.heads.attention import AttentionReadout
from readouts.heads.base import Readout
from readouts.heads.correlation import CorrelationReadout
from readouts.heads.dpt import DPTReadout
from readouts.heads.linear import LinearReadout
from readouts.heads.multi_query import MultiQueryReadout
from readouts.heads.pooled_mlp import PooledMLPReadout
from readouts.heads.several.dpt_layers import DPTLayersReadout
from readouts.heads.several.ladder import LadderReadout
from readouts.heads.several.layer_fusion import LayerFusionReadout
from readouts.heads.tracking import TrackingReadout

__all__ = ["HEADS", "LAYER_HEADS", "SHAPE_SETTINGS", "Readout", "build_head", "load_reference", "settings_of"]

HEADS: Mapping[str, type[Readout]] = {
    "linear": LinearReadout,
    "attention": AttentionReadout,
    "tracking": TrackingReadout,
    "dpt": DPTReadout,
    # Beyond the benchmark's own.
    "attention_multi": MultiQueryReadout,
    "pooled_mlp": PooledMLPReadout,
    "correlation": CorrelationReadout,
}
"""Every head that `train-readout` trains on one layer, by its name on the command line."""

LAYER_HEADS: Mapping[str, type[Readout]] = {
    "attention_layers": LayerFusionReadout,
    "ladder": LadderReadout,
    "dpt_layers": DPTLayersReadout,
}
"""Those of several layers: their constructors are told `n_layers`, they are given tokens of each."""

SHAPE_SETTINGS = frozenset({"n_frames", "n_variables", "out_rows", "out_columns"})
"""Settings that follow from a task's data: not for `--set` to change."""

_SHAPE = ("channels", "steps", "n_outputs", "rows", "columns", "n_layers", "generator")
"""Arguments of constructors that `build_head` has names of its own for."""


def settings_of(kind: str) -> dict[str, Any]:
    """Setting -> default of the heads called `kind`: the arguments that are neither shape nor generator.

    Raises:
        CallError: no head is called `kind`.
    """
    parameters = signature(_head(kind)).parameters
    return {name: given.default for name, given in parameters.items() if name not in _SHAPE}


def build_head(
    kind: str,
    *,
    channels: int,
    steps: int,
    n_outputs: int,
    rows: int | None = None,
    columns: int | None = None,
    n_layers: int = 1,
    generator: Generator | None = None,
    **config: Any,
) -> Readout:
    """A new head for tokens [B T N C] with T = `steps` and C = `channels`, a pure function of `generator`.

    A head takes those of the shape's values that its constructor names: only heads that give a vector have
    `n_outputs`, only dpt and correlation read the tokens as maps of `rows` x `columns` = N, only those of
    `LAYER_HEADS` have `n_layers`.

    `config` are the head's own settings (`settings_of`).

    Raises:
        CallError: no head is called `kind`, it has no such setting (says what there is), or it needs rows
            and columns and was not given them.
    """
    head, settings = _head(kind), settings_of(kind)
    if unknown := [name for name in config if name not in settings]:
        has = f"it has {', '.join(settings)}" if settings else "it has none"
        raise CallError(f"the {kind} readout has no setting {', '.join(unknown)}: {has}.")
    known = signature(head).parameters
    if "rows" in known and (rows is None or columns is None):
        raise CallError(f"the {kind} readout reads tokens as a map: give the rows and columns of their grid.")
    shape = dict(zip(_SHAPE, (channels, steps, n_outputs, rows, columns, n_layers, generator), strict=True))
    return head(**{name: value for name, value in shape.items() if name in known}, **config)


def load_reference(kind: str, params: Mapping[str, Shaped[np.ndarray, "..."]], **config: Any) -> nn.Module:
    """A head trained by the reference implementation: see `readouts.heads.reference.load.load_reference`."""
    from readouts.heads.reference import load

    return load.load_reference(kind, params, **config)


def _head(kind: str) -> type[Readout]:
    every = {**HEADS, **LAYER_HEADS}
    if kind not in every:
        raise CallError(f"no readout is called {kind!r}: known are {', '.join(every)}.")
    return every[kind]
