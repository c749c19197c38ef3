"""Small heads of several layers, and tokens for them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from featcache.spec import Layer
from readouts.heads import Readout, build_head
from readouts.tokens.prepared import TokenPreparation

LAYERS = (Layer(1), Layer(2), Layer(3))
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "attention_layers": {"width": 16, "heads": 2},
    "ladder": {"width": 8, "heads": 2, "dropout": 0.0},
    "dpt_layers": {"features": 4, "head_channels": 4, "n_frames": 2, "out_rows": 5, "out_columns": 6},
}


def head_of(kind: str, *, seed: int = 0, n_layers: int = 3, **settings: Any) -> Readout:
    head = build_head(
        kind, channels=12, steps=4, n_outputs=5, rows=2, columns=2, n_layers=n_layers,
        generator=torch.Generator().manual_seed(seed), **{**SETTINGS.get(kind, {}), **settings},
    )  # fmt: skip
    head.layers = LAYERS[:n_layers]
    return head


def tokens_of_layers(seed: int = 1) -> dict[Layer, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(3, 2, 4, 12, generator=generator) for layer in LAYERS}


def preparation() -> TokenPreparation:
    return TokenPreparation(steps_in=2, steps_out=4, method="linear")
