"""What every model with its weights in one released file does alike: digest, refusals, loading, encoding.

A member says how its model is made and how the file fills it; blocks after the deepest layer asked for are
never made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from featcache.backbones import base
from featcache.backbones.base import BackboneInfo
from featcache.backbones.encoder import ClipEncoder, deepest
from featcache.backbones.weights.locate import file_digest
from featcache.spec import Layer


@dataclass(frozen=True, kw_only=True, slots=True)
class OneFileBackbone:
    """One model by name; see `featcache.backbones.base.Backbone` for what the methods promise."""

    info: BackboneInfo
    file: Callable[[], Path]
    """Finds the weight file, or raises a WeightsError."""

    def weights_digest(self) -> str:
        """Sha256 of the weight file's bytes."""
        return file_digest(self.file())

    def preprocessing(self) -> base.JSON:
        """Exact-overlap resize, and mean and std where the model has them."""
        return base.preprocessing(self.info)

    def load(self, layers: tuple[Layer, ...], device: torch.device, dtype: torch.dtype) -> base.Encoder:
        """Weights up to the deepest of `layers`, in `dtype` on `device`."""
        for layer in layers:
            base.check_layer(layer, self.info)
        n_blocks, normed = deepest(layers)
        model = self.model(n_blocks, normed)
        model.load_state_dict(self.parameters(model.state_dict(), device, dtype), assign=True)
        return ClipEncoder(info=self.info, layers=layers, model=model.eval(), device=device, dtype=dtype)

    def model(self, n_blocks: int, normed: bool) -> nn.Module:
        """A `clip_encoder.TokenModel` on the meta device, cut after `n_blocks`, normed or not."""
        raise NotImplementedError

    def parameters(
        self, wanted: dict[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """The numbers of the `wanted` parameters, from a file in which every key was accounted for.

        Raises:
            WeightsError: there is no file, or it is not this model's.
        """
        raise NotImplementedError
