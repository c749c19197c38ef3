"""4DS from its released npz: Flax arrays onto our ViT (`4ds_b_dist_e`, `4ds_e`, and `4ds_l`, never released).

Three things differ from the other video ViTs and none of them fails loudly: GELU is Flax's default, the tanh
approximation; no norm follows the last block; pixels stay in [0, 1]. Flax keeps kernels as [in, ..., out].
"""

from dataclasses import dataclass
from typing import ClassVar

from featcache.backbones.sizes import VideoViTSize
from featcache.backbones.vit import VideoViTBackbone
from featcache.backbones.weights.checkpoint import Shapes
from featcache.backbones.weights.key_map import Entries, Entry, KeyMap, flax_dense, flax_norm, nested
from featcache.errors import CallError


@dataclass(frozen=True, kw_only=True, slots=True)
class FourDS(VideoViTBackbone):
    """A 4DS of any size.

    Raises:
        CallError: positions made for another grid; the authors published no rule to stretch them by.
    """

    family: ClassVar[str] = "4ds"

    def __post_init__(self) -> None:
        if self.size.table is not None:
            raise CallError(
                f"{self.info.name}: positions of {self.size.table} do not fit a grid of "
                f"{self.size.grid.shape[:3]}, and 4DS has no rule to stretch them by: leave `table` out."
            )

    def key_map(self, found: Shapes) -> KeyMap:
        """The table of `scaling4d_*.npz`, in which every array is used."""
        return KeyMap(released_entries(self.size))


open_model = FourDS.named


def released_entries(size: VideoViTSize) -> Entries:
    """Where `scaling4d_*.npz` has each of our parameters, of all blocks."""
    width, encoder = size.block.width, "params/encoder"
    convolution = f"{encoder}/patch_embedding/Conv_0"
    entries: Entries = {
        "embedding.weight": Entry(
            (f"{convolution}/kernel",), (*size.patch, 3, width), "f y x rgb c -> c rgb f y x"
        ),
        "embedding.bias": Entry((f"{convolution}/bias",), (width,)),
        "positions": Entry(
            (f"{encoder}/posenc/embeddings",), (*size.stored_grid, width), "t h w c -> (t h w) c"
        ),
    }
    for number in range(size.depth):
        entries |= nested(f"blocks.{number}.", f"params/processor/layers_{number}/", _block(size))
    return entries


def _block(size: VideoViTSize) -> Entries:
    width, heads, mlp = size.block.width, size.block.heads, size.block.mlp
    qkv, per_head = [f"attention/{part}" for part in ("query", "key", "value")], width // heads
    return {
        **flax_norm("norm1", "attention_norm", width),
        "qkv.weight": Entry(
            tuple(f"{part}/kernel" for part in qkv), (width, heads, per_head), "c h d -> (h d) c"
        ),
        "qkv.bias": Entry(tuple(f"{part}/bias" for part in qkv), (heads, per_head), "h d -> (h d)"),
        "out.weight": Entry(("attention/out/kernel",), (heads, per_head, width), "h d c -> c (h d)"),
        "out.bias": Entry(("attention/out/bias",), (width,)),
        **flax_norm("norm2", "mlp_norm", width),
        **flax_dense("up", "mlp/dense_in", width, mlp),
        **flax_dense("down", "mlp/dense_out", mlp, width),
    }
