"""V-JEPA from its released `.pth.tar`: the target encoder, as the authors' own evaluations take it.

The file also holds the encoder that was trained against it, the predictor and Adam's state; memory-mapping
leaves those on disk. Positions are stored, and stretched where clips have another size than in training.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from featcache.backbones.positions import stretched
from featcache.backbones.video_catalogue import VIDEO_FILES, VJEPA_SIZES, VideoViTSize, vjepa_info
from featcache.backbones.vit import (
    Family,
    Layout,
    Source,
    VideoViTBackbone,
    as_it_is,
    timm_block,
    timm_ends,
)
from featcache.backbones.weights.checkpoint import Shapes

PREFIX = "module.backbone."
"""Of every key: the wrappers of distributed training and of masking."""


def open_vjepa(name: str, weights_dir: Path | None) -> VideoViTBackbone:
    """A V-JEPA, from `<weights_dir>/<name>/`."""
    return vjepa(name, VJEPA_SIZES[name], partial(VIDEO_FILES[name].obtain, name, weights_dir))


def layout(size: VideoViTSize, _found: Shapes) -> Layout:
    """Every tensor of the target encoder and the parameter it becomes."""
    steps, rows, columns = size.stored_grid
    table = {f"{PREFIX}pos_embed": (1, steps * rows * columns, size.block.width)}
    sources = timm_ends(PREFIX, size, norm=True)
    sources["positions"] = Source(table, partial(_positions, size))
    for number in range(size.depth):
        released = f"{PREFIX}blocks.{number}."
        block = timm_block(released, size)
        block["qkv.bias"] = Source({f"{released}attn.qkv.bias": (3 * size.block.width,)}, as_it_is)
        sources |= {f"blocks.{number}.{name}": source for name, source in block.items()}
    return Layout(sources=sources)


FAMILY = Family(
    name="vjepa",
    layout=layout,
    sections=("target_encoder",),
    left_out_sections=("encoder", "predictor"),
)


def vjepa(name: str, size: VideoViTSize, file: Callable[[], Path]) -> VideoViTBackbone:
    """A V-JEPA of any size; `size.table` is the grid it was trained on where that is another."""
    return VideoViTBackbone(info=vjepa_info(name, size), size=size, family=FAMILY, file=file)


def _positions(size: VideoViTSize, table: Float[Tensor, "1 S C"]) -> tuple[Float[Tensor, "N C"]]:
    return (stretched(table[0], size.stored_grid, size.grid.shape[:3]),)
