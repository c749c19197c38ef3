"""Parameters and gradients of our heads as the reference names them and lays them out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from readouts.heads.dpt import DPTReadout
from readouts.heads.reference.modules import (
    ReferenceDPT,
    ReferenceForecast,
    ReferenceReadout,
    ReferenceTracking,
    ShiftedReadout,
)
from readouts.heads.reference.parameters import parameters_of

WRAPPERS: Mapping[type[nn.Module], tuple[str, str]] = {
    ReferenceReadout: ("", "head"),
    ReferenceTracking: ("", "head"),
    ReferenceDPT: ("", "head"),
    ShiftedReadout: ("inner_readout/", "head"),
    ReferenceForecast: ("inner_readout/", "head"),
    DPTReadout: ("", "decoder"),
}
"""Modules without parameters of their own: what the reference puts before the paths of the module inside, and
what that is called here."""


def to_reference(module: nn.Module) -> dict[str, np.ndarray]:
    """The parameters of a head, trained here or loaded, by the reference's paths."""
    return _in_reference_layout(module, {name: value.detach() for name, value in module.named_parameters()})


def gradients_to_reference(module: nn.Module) -> dict[str, np.ndarray]:
    """The gradients of a head after a backward pass, by the reference's paths."""
    return _in_reference_layout(module, {name: p.grad for name, p in module.named_parameters()})


def _in_reference_layout(module: nn.Module, ours: Mapping[str, Any]) -> dict[str, np.ndarray]:
    before, prefix = "", ""
    while type(module) in WRAPPERS:
        outer, name = WRAPPERS[type(module)]
        before, prefix, module = before + outer, f"{prefix}{name}.", module.get_submodule(name)
    return {
        f"{before}{path}": entry.to_reference(ours[prefix + entry.name])
        for path, entry in parameters_of(module).items()
    }
