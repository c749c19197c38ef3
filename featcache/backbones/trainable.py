"""A backbone that can be trained: pixels, or tokens after some block, to tokens at one layer, with gradients.

Parameters are float32 whatever a store was computed in. Blocks after the layer are not made: the reference
moves them by nothing but the decay, which at its own settings is less than float32 can hold. Of a model that
begins at stored tokens the lower blocks and the embedding are neither made nor read.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from featcache.backbones.base import Backbone, BackboneInfo, check_layer
from featcache.backbones.encoder import PretrainedBackbone, deepest, meta
from featcache.backbones.inputs import model_input
from featcache.backbones.own import OwnBackbone
from featcache.backbones.parts import tokens_after
from featcache.errors import CallError
from featcache.spec import Layer, TokenGrid


@runtime_checkable
class BlockModel(Protocol):
    """A model of one stack of blocks over all tokens of a clip, which can begin at any of them."""

    grid: TokenGrid

    def embed(self, frames: Float[Tensor, "B F rgb Y X"]) -> Float[Tensor, "B S C"]:
        """What the first block is given."""

    def parts(self) -> tuple[nn.ModuleList, nn.Module | None]:
        """The blocks, and the norm after the last of them."""

    def blocks_for(self, state: Float[Tensor, "B S C"]) -> Iterable[Callable[[Tensor], Any]]:
        """The blocks as they are called on `state`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningMode:
    """How a backbone is run in training; none of it changes the numbers but `bfloat16`."""

    bfloat16: bool = False
    """Whether products are of bfloat16 (autocast); parameters, sums and norms stay float32."""
    checkpointing: bool = False
    """Whether a block's activations are computed again for the backward pass instead of being kept."""


class TrainableBackbone(nn.Module):
    """A backbone from its input to one layer, or its blocks from stored tokens to there."""

    step_weights: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        info: BackboneInfo,
        layer: Layer,
        begin: int | None,
        mode: TuningMode,
        step_weights: Float[Tensor, "T"] | None = None,
    ) -> None:
        """As `trainable` makes it: `begin` is the block after which tokens are given; None: pixels are."""
        super().__init__()
        self.model, self.info, self.layer, self.begin, self.mode = model, info, layer, begin, mode
        self.register_buffer("step_weights", step_weights, persistent=False)

    def forward(self, given: Float[Tensor, "B *axes"]) -> Float[Tensor, "B T N C"]:
        """Float32 tokens at the layer, rows and columns on one axis.

        `given` are pixels [B F rgb Y X] in [0, 1] of any size, or tokens [B T N C] of any float dtype.

        Raises:
            CallError: another number of frames or channels.
        """
        model = self.model
        assert isinstance(model, BlockModel), "what `trainable` makes is one"
        with torch.autocast(given.device.type, torch.bfloat16, enabled=self.mode.bfloat16):
            if self.begin is None:
                state = model.embed(model_input(given, self.info, given.device))
            else:
                state = rearrange(given, "b t n c -> b (t n) c").float()
            begin, (_, norm) = self.begin or 0, model.parts()
            blocks = list(model.blocks_for(state))[begin:]
            if self.mode.checkpointing and torch.is_grad_enabled():
                blocks = [
                    partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
                    for block in blocks
                ]
            found = tokens_after(blocks, norm, state, (self.layer,), model.grid, begin=begin)
        tokens: Tensor = rearrange(found[self.layer].float(), "b t h w c -> b t (h w) c")
        if self.step_weights is not None:
            tokens = einsum(tokens, self.step_weights, "b t n c, t -> b n c")[:, None]
        return tokens


def trainable(
    backbone: Backbone,
    layer: Layer,
    device: torch.device,
    *,
    begin: int | None = None,
    mode: TuningMode | None = None,
    step_weights: Float[Tensor, "T"] | None = None,
    learned: Mapping[str, Tensor] | None = None,
) -> TrainableBackbone:
    """The part of a backbone that is trained with a readout at `layer`, with its weights, in float32.

    Args:
        backbone: by name, one whose weights are released.
        layer: that the readout sees.
        device: of the parameters.
        begin: the block after which tokens are given, 0 the token embedding; None: pixels are given, and
            everything up to the layer is trained.
        mode: how it is run.
        step_weights: share of each step in the only one that is given out; None: all are.
        learned: parameters of one that was trained, by their names in it; None: those of the release.

    Raises:
        CallError: the model cannot be trained here (says why), or has no such layer or block below it.
        WeightsError: as `PretrainedBackbone.load`.
        RuntimeError: what was learned is of another model.
    """
    info = backbone.info
    own = refuse_untrainable(backbone)
    check_layer(layer, info)
    if begin is not None and not 0 <= begin < layer.block:
        raise CallError(
            f"no block lies between block {begin} and layer {layer.name} of {info.name}: tune from 1 to "
            f"{layer.block} blocks."
        )
    model = meta(own.model, *deepest((layer,)))
    _without_lower(model, begin)
    found = TrainableBackbone(model.eval(), info, layer, begin, mode or TuningMode(), step_weights)
    if learned is None:
        model.load_state_dict(own.read(model.state_dict(), device, torch.float32), assign=True)
    else:
        found.load_state_dict(learned, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in own.computed)
    return found.to(device)


def refuse_untrainable(backbone: Backbone) -> PretrainedBackbone:
    """A backbone as one that can be trained; of an object in a user's file the object.

    Raises:
        CallError: it cannot; says why.
    """
    info = backbone.info
    backbone = backbone.own if isinstance(backbone, OwnBackbone) else backbone
    if info.n_blocks == 0:
        why = "it has no weights"
    elif info.frame_level:
        why = "it is an image model, whose tokens are stored once for frames that clips share"
    elif not isinstance(backbone, PretrainedBackbone):
        why = "a model of your own gives tokens and no gradients"
    elif not isinstance(meta(backbone.model, 0, ()), BlockModel):
        why = "its blocks are no single stack over the tokens of a clip"
    else:
        return backbone
    raise CallError(
        f"{info.name} cannot be tuned: {why}. What can are 4DS, VideoMAE, VideoMAEv2 and every V-JEPA."
    )


def _without_lower(model: nn.Module, begin: int | None) -> None:
    """Take away the parameters of what lies below block `begin`: they are nobody's, and are not read."""
    if begin is None:
        return
    assert isinstance(model, BlockModel)
    blocks, norm = model.parts()
    upper = [*blocks[begin:], *([] if norm is None else [norm])]
    kept = {id(parameter) for part in upper for parameter in part.parameters()}
    for part in model.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if id(parameter) not in kept:
                part.register_parameter(name, None)
