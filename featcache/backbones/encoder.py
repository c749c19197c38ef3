"""What vision transformers of several families share: patches in at the front, tokens out at the back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from featcache.backbones.base import BackboneInfo
from featcache.backbones.inputs import model_input
from featcache.spec import Layer


@runtime_checkable
class TokenModel(Protocol):
    """A loaded model: normalised frames to the tokens of chosen layers."""

    def __call__(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Tokens at `layers`, of which none is deeper than the model was made."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipEncoder:
    """A token model behind the pixels' preprocessing; see `featcache.backbones.base.Encoder`."""

    info: BackboneInfo
    layers: tuple[Layer, ...]
    model: TokenModel
    device: torch.device
    dtype: torch.dtype

    def __call__(self, pixels: Float[Tensor, "B F rgb Y X"]) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Float32 tokens of every layer, whatever the model computes in."""
        with torch.inference_mode():
            frames = model_input(pixels, self.info, self.device).to(self.dtype)
            return {layer: state.float() for layer, state in self.model(frames, self.layers).items()}


class PatchEmbedding(nn.Module):
    """A patch convolution as one matrix product.

    Patches do not overlap, so it is the same function. The convolution itself is slow in bfloat16 on many
    GPUs and wrong on some (pytorch/pytorch issues 166643 and 163539), and rounds float32 to TF32 by default.
    """

    def __init__(self, patch: tuple[int, int, int], width: int, *, image: bool = False) -> None:
        """`patch` is (frames, rows, columns); the weights of an `image` model have no axis of frames."""
        super().__init__()
        self.patch = patch
        self.weight = nn.Parameter(torch.empty(width, 3, *(patch[1:] if image else patch)))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, frames: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B T N D"]:
        """One vector a patch, those of a step numbered through (row, column)."""
        depth, rows, columns = self.patch
        cut = "b (t f) c (h y) (w x) -> b t (h w) (c f y x)"
        patches = rearrange(frames, cut, f=depth, y=rows, x=columns)
        return nn.functional.linear(patches, rearrange(self.weight, "d ... -> d (...)"), self.bias)


def states_after(
    blocks: Iterable[Callable[[Tensor], Any]],
    norm: Callable[[Tensor], Tensor] | None,
    state: Float[Tensor, "B S D"],
    layers: tuple[Layer, ...],
) -> dict[Layer, Float[Tensor, "B S D"]]:
    """Run `state`, the token embedding, through all `blocks`, and keep what it is at `layers`.

    Args:
        blocks: each gives the next state, or (some releases of transformers) a tuple that begins with it.
        norm: the final norm; None where no layer asks for it.
        state: tokens of each sequence.
        layers: none deeper than the blocks reach.
    """
    kept, number = ({Layer(0): state} if Layer(0) in layers else {}), 0
    for number, block in enumerate(blocks, start=1):
        output = block(state)
        state = output[0] if isinstance(output, tuple) else output
        if Layer(number) in layers:
            kept[Layer(number)] = state
    if norm is not None:
        kept[Layer(number, normed=True)] = norm(state)
    return kept


def deepest(layers: tuple[Layer, ...]) -> tuple[int, bool]:
    """Blocks to run for `layers`, and whether the final norm comes after them."""
    return max(layer.block for layer in layers), any(layer.normed for layer in layers)
