"""Registered backbones at full size with random weights, drawn where the model runs; no file is written.

For what needs the arithmetic of a model and not its knowledge. `backbone_speed` writes released layouts to
disk and loads them as users do; here the keys are our own, so 4DS-e is there in seconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from featcache.backbones import BACKBONES, load_backbone
from featcache.backbones.base import JSON, Backbone
from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.families.videomae import VideoMAE
from featcache.backbones.sizes import size_entry
from featcache.backbones.weights.checkpoint import Shapes, TensorFile
from featcache.backbones.weights.key_map import Entry, KeyMap


def random_backbone(name: str, device: torch.device, *, depth: int | None = None) -> Backbone:
    """The registered model `name`, of `depth` blocks where that is given; the same weights in every process.

    Models that need no file come as they are.
    """
    backbone = load_backbone(name)
    if not isinstance(backbone, PretrainedBackbone) or BACKBONES[name].release is None:
        return backbone
    info, size = backbone.info, backbone.size
    if depth is not None:
        # A model with norms at several depths keeps the last.
        levels = {"levels": (depth,)} if info.levels else {}
        size = replace(size, depth=depth, **levels)
        last = replace(info.last_layer, block=depth)
        info = replace(info, n_blocks=depth, default_layers=(last,), gflop=size.gflop, levels=())
    drawn: Backbone = _drawn(type(backbone), device)(info=info, size=size, file=backbone.file)
    return drawn


@lru_cache
def _drawn(kind: type[PretrainedBackbone], device: torch.device) -> Any:
    """A family that draws its tensors when they are read, and looks for no file."""

    class Drawn(kind):  # type: ignore[misc,valid-type]
        def architecture(self) -> JSON:
            return {"family": kind.__name__, "weights": "random", **size_entry(self.size)}

        def weights_digest(self) -> str:
            return "random"

        def key_map(self, found: Shapes) -> KeyMap:
            state = self.whole().state_dict()
            return KeyMap({name: Entry((name,), tuple(tensor.shape)) for name, tensor in state.items()})

        @contextmanager
        def weights(self) -> Iterator[TensorFile]:
            shapes = self.key_map({}).shapes
            yield TensorFile(shapes, lambda name: _draw(name, shapes[name], device), "random weights")

    if issubclass(kind, VideoMAE):
        Drawn.saved_size = lambda self: self.size  # type: ignore[attr-defined]
    return Drawn


def _draw(name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Biases 0, norms and scales 1, all else normal with variance 1 / fan-in."""
    if len(shape) == 1:
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0, device=device)
    generator = torch.Generator(device).manual_seed(crc32(name.encode()))
    values = torch.randn(shape, device=device, generator=generator)
    return values * values[0].numel() ** -0.5
