"""4DS from its released npz: Flax arrays onto our ViT (`4ds_b_dist_e`, `4ds_e`, and `4ds_l`, never released).

Three things differ from the other video ViTs and none of them fails loudly: GELU is Flax's default, the tanh
approximation; no norm follows the last block; pixels stay in [0, 1]. Flax keeps kernels as [in, ..., out].
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from featcache.backbones.video_catalogue import FOURDS_SIZES, VIDEO_FILES, VideoViTSize, fourds_info
from featcache.backbones.vit import Family, Layout, Source, VideoViTBackbone, as_it_is
from featcache.backbones.weights.checkpoint import Shapes
from featcache.errors import CallError


def open_fourds(name: str, weights_dir: Path | None) -> VideoViTBackbone:
    """A 4DS model, from `<weights_dir>/<name>/`."""
    file = partial(VIDEO_FILES[name].obtain, name, weights_dir)
    return fourds(name, FOURDS_SIZES[name], file)


def layout(size: VideoViTSize, _found: Shapes) -> Layout:
    """Every array of `scaling4d_*.npz` and the parameter it becomes."""
    encoder, width = "params/encoder", size.block.width
    kernel, bias = (f"{encoder}/patch_embedding/Conv_0/{part}" for part in ("kernel", "bias"))
    sources = {
        "embedding.weight": Source({kernel: (*size.patch, 3, width)}, _filters),
        "embedding.bias": Source({bias: (width,)}, as_it_is),
        "positions": Source({f"{encoder}/posenc/embeddings": (*size.stored_grid, width)}, _table),
    }
    for number in range(size.depth):
        block = _block(f"params/processor/layers_{number}", size)
        sources |= {f"blocks.{number}.{name}": source for name, source in block.items()}
    return Layout(sources=sources)


FAMILY = Family(name="4ds", layout=layout)


def fourds(name: str, size: VideoViTSize, file: Callable[[], Path]) -> VideoViTBackbone:
    """A 4DS of any size.

    Raises:
        CallError: positions made for another grid; the authors published no rule to stretch them by.
    """
    if size.table is not None:
        raise CallError(
            f"{name}: positions of {size.table} do not fit a grid of {size.grid.shape[:3]}, and 4DS has no "
            "rule to stretch them by: leave `table` out."
        )
    return VideoViTBackbone(info=fourds_info(name, size), size=size, family=FAMILY, file=file)


def _block(released: str, size: VideoViTSize) -> dict[str, Source]:
    width, heads, mlp = size.block.width, size.block.heads, size.block.mlp
    per_head = width // heads
    kernels = {f"{released}/attention/{part}/kernel": (width, heads, per_head) for part in _QKV}
    biases = {f"{released}/attention/{part}/bias": (heads, per_head) for part in _QKV}
    out = f"{released}/attention/out"
    return {
        **_norm("norm1", f"{released}/attention_norm", width),
        "qkv.weight": Source(kernels, _stacked_kernels),
        "qkv.bias": Source(biases, _stacked_biases),
        "out.weight": Source({f"{out}/kernel": (heads, per_head, width)}, _from_heads),
        "out.bias": Source({f"{out}/bias": (width,)}, as_it_is),
        **_norm("norm2", f"{released}/mlp_norm", width),
        **_dense("up", f"{released}/mlp/dense_in", width, mlp),
        **_dense("down", f"{released}/mlp/dense_out", mlp, width),
    }


_QKV = ("query", "key", "value")


def _norm(ours: str, released: str, width: int) -> dict[str, Source]:
    return {
        f"{ours}.weight": Source({f"{released}/scale": (width,)}, as_it_is),
        f"{ours}.bias": Source({f"{released}/bias": (width,)}, as_it_is),
    }


def _dense(ours: str, released: str, n_in: int, n_out: int) -> dict[str, Source]:
    return {
        f"{ours}.weight": Source({f"{released}/kernel": (n_in, n_out)}, _transposed),
        f"{ours}.bias": Source({f"{released}/bias": (n_out,)}, as_it_is),
    }


def _filters(kernel: Float[Tensor, "F Y X rgb C"]) -> tuple[Float[Tensor, "C rgb F Y X"]]:
    return (rearrange(kernel, "f y x rgb c -> c rgb f y x"),)


def _table(embeddings: Float[Tensor, "T H W C"]) -> tuple[Float[Tensor, "S C"]]:
    return (rearrange(embeddings, "t h w c -> (t h w) c"),)


def _transposed(kernel: Float[Tensor, "I O"]) -> tuple[Float[Tensor, "O I"]]:
    return (rearrange(kernel, "i o -> o i"),)


def _stacked_kernels(*kernels: Float[Tensor, "C heads D"]) -> Iterator[Float[Tensor, "O C"]]:
    return (rearrange(kernel, "c h d -> (h d) c") for kernel in kernels)


def _stacked_biases(*biases: Float[Tensor, "heads D"]) -> Iterator[Float[Tensor, " O"]]:
    return (rearrange(bias, "h d -> (h d)") for bias in biases)


def _from_heads(kernel: Float[Tensor, "heads D C"]) -> tuple[Float[Tensor, "C O"]]:
    return (rearrange(kernel, "h d c -> c (h d)"),)
