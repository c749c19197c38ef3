"""What the benchmark's five tasks set otherwise than any task of their kind (PROTOCOL: the five tasks)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from readouts.tasks.base import Recipe

MEAN_PRESSURE = 983.9111856685796
"""Mean central pressure of typhoon's training split, in hPa: what predictions are relative to."""

SETTINGS: Mapping[tuple[str, str], Mapping[str, Any]] = MappingProxyType(
    {
        # Seven social behaviours of a pair of flies: no weight decay, and a narrow attention head.
        ("flyvsfly", "classification"): {
            "recipe": Recipe(weight_decay=0.0),
            "attention": {"width": 128, "heads": 16, "dropout": 0.5},
        },
        # The central pressure of the next hours, from infrared images alone.
        ("typhoon", "regression"): {"offset": MEAN_PRESSURE},
    }
)
"""Name and kind of a task -> arguments of the kind's `of`, beside manifest and name."""
