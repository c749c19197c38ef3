"""Readouts: small heads on cached tokens, each a file, all by name in one dict.

- `HEADS`: name -> class, as on the command line.
- `build_head`: a new head by name, for tokens of a shape, from a seed.
- `load_reference`, `to_reference`: a head's parameters from and to the reference implementation's (Flax).
"""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from torch import Generator

from featcache.errors import CallError
from readouts.heads.attention import AttentionReadout, QueriedAttentionReadout
from readouts.heads.base import Readout
from readouts.heads.linear import LinearReadout
from readouts.heads.reference import load_reference, to_reference

__all__ = [
    "HEADS",
    "AttentionReadout",
    "LinearReadout",
    "QueriedAttentionReadout",
    "Readout",
    "build_head",
    "load_reference",
    "to_reference",
]

HEADS: Mapping[str, type[Readout]] = {"linear": LinearReadout, "attention": AttentionReadout}
"""Every head that `train-readout` trains, by the name it has there."""


def build_head(
    kind: str,
    *,
    channels: int,
    steps: int,
    n_outputs: int,
    generator: Generator | None = None,
    **config: Any,
) -> Readout:
    """A new head for tokens [B T N C] with T = `steps` and C = `channels`, a pure function of `generator`.

    `config` are the head's own settings (attention: width, heads, dropout, n_queries).

    Raises:
        CallError: no head is called `kind`, or it has no such setting; says what there is.
    """
    if kind not in HEADS:
        raise CallError(f"no readout is called {kind!r}: known are {', '.join(HEADS)}.")
    head = HEADS[kind]
    shape = {"channels": channels, "steps": steps, "n_outputs": n_outputs, "generator": generator}
    known = signature(head).parameters
    settings = [name for name in known if name not in shape]
    if unknown := [name for name in config if name not in settings]:
        has = f"it has {', '.join(settings)}" if settings else "it has none"
        raise CallError(f"the {kind} readout has no setting {', '.join(unknown)}: {has}.")
    return head(**{name: value for name, value in shape.items() if name in known}, **config)
