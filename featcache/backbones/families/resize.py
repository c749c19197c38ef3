"""The benchmark's baseline without parameters: the mean colour of each patch.

It shows what a readout makes of a small blurred video, so what a frozen model adds. Same function as the
reference's PassThroughModel with patches of 1 x 14 x 14 pixels, without mean, std or stretch in time: means
over a grid of 16 x 16 patches are an area resize to 16 x 16, so the resize to the model's size is all of it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from featcache.backbones import base
from featcache.backbones.base import BackboneInfo
from featcache.backbones.catalogue import BACKBONES
from featcache.backbones.encoder import ClipEncoder
from featcache.errors import CallError
from featcache.spec import Layer


@dataclass(frozen=True, kw_only=True, slots=True)
class ResizeTokens:
    """The mean colour of each patch as a backbone: [B, T, H, W, 3] tokens in float32."""

    info: BackboneInfo
    patch: tuple[int, int, int] = (1, 1, 1)
    """(frames, rows, columns) of `info.input_size` averaged into one token."""

    def __post_init__(self) -> None:
        sizes = (self.info.n_frames, *self.info.input_size)
        if any(size % patch for size, patch in zip(sizes, self.patch, strict=True)):
            raise CallError(f"patches of {self.patch} do not divide {sizes} (frames, rows, columns).")

    def weights_digest(self) -> str:
        """A word instead of a digest: there are no weights."""
        return "no weights"

    def architecture(self) -> base.JSON:
        """Family, patch size and grid, for the fingerprint."""
        return {"family": "patch mean", "patch": list(self.patch), "grid": base.grid_entry(self.info)}

    def preprocessing(self) -> base.JSON:
        """The usual one, without mean and std."""
        return base.preprocessing(self.info)

    def load(self, layers: tuple[Layer, ...], device: torch.device, dtype: torch.dtype) -> base.Encoder:
        """Ready at once; pixels are averaged in float32 whatever `dtype` says: less would gain nothing."""
        for layer in layers:
            base.check_layer(layer, self.info)

        def model(frames: Tensor, layers: tuple[Layer, ...]) -> dict[Layer, Tensor]:
            return dict.fromkeys(layers, patch_mean(frames, self.patch))

        return ClipEncoder(info=self.info, layers=layers, model=model, device=device, dtype=torch.float32)


def patch_mean(pixels: Float[Tensor, "B F C Y X"], patch: tuple[int, int, int]) -> Float[Tensor, "B T H W C"]:
    """The mean over each patch of (frames, rows, columns), which must divide the clip."""
    frames, rows, columns = patch
    if patch == (1, 1, 1):
        return rearrange(pixels, "b t c h w -> b t h w c")
    return reduce(
        pixels, "b (t f) c (h y) (w x) -> b t h w c", "mean", f=frames, y=rows, x=columns
    )  # fmt: skip


def open_model(name: str, weights_dir: Path | None) -> ResizeTokens:
    """The baseline; like every family's it takes a folder of weights, and needs none."""
    return ResizeTokens(info=BACKBONES[name].info)
