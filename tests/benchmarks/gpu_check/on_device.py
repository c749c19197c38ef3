"""A plugin of pytest: backbones are loaded on the device of GPU_CHECK_DEVICE, their tokens come back.

So the suite's own golden tests, which know of CPUs alone, judge what a GPU computes.
"""

import os
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Move every model that is loaded."""
    # Here, for the suite's own shape checks must come before the first import of what they check.
    import torch

    from featcache.backbones.encoder import ClipEncoder, PretrainedBackbone

    device = torch.device(os.environ["GPU_CHECK_DEVICE"])
    load, call = PretrainedBackbone.load, ClipEncoder.__call__

    def load_there(self: Any, layers: Any, _: Any, dtype: Any) -> Any:
        return load(self, layers, device, dtype)

    def call_back(self: Any, pixels: Any) -> Any:
        return {layer: tokens.cpu() for layer, tokens in call(self, pixels).items()}

    PretrainedBackbone.load, ClipEncoder.__call__ = load_there, call_back  # type: ignore[method-assign]
