"""One lean video ViT for the models that no library has: tubelets in, tokens after any block out.

Pre-norm blocks (Dosovitskiy et al., ICLR 2021) with learned or fixed positions, erf or tanh GELU, with or
without a final norm. Only the blocks that the deepest layer asked for needs are built, loaded and run. Matrix
products run in the dtype that is asked for; the sum that runs through the blocks, the norms and the positions
stay float32, which keeps a bfloat16 pass of 56 blocks accurate and costs little.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from featcache.backbones import base
from featcache.backbones.encoder import PatchEmbedding, states_after
from featcache.backbones.one_file import OneFileBackbone
from featcache.backbones.releases import check_keys
from featcache.backbones.sizes import size_entry
from featcache.backbones.video_catalogue import VideoViTSize
from featcache.backbones.weights.checkpoint import Shapes, TensorFile, open_tensors
from featcache.errors import WeightsError
from featcache.spec import Layer


class Block(nn.Module):
    """Attention and MLP, each on the normed sum so far and added to it."""

    def __init__(self, size: VideoViTSize) -> None:
        super().__init__()
        block = size.block
        self.heads, self.approximate = block.heads, "tanh" if size.gelu == "tanh" else "none"
        self.norm1 = nn.LayerNorm(block.width, eps=block.eps)
        # A family without a bias of keys has zeros there: the softmax does not see a constant.
        self.qkv = nn.Linear(block.width, 3 * block.width)
        self.out = nn.Linear(block.width, block.width)
        self.norm2 = nn.LayerNorm(block.width, eps=block.eps)
        self.up = nn.Linear(block.width, block.mlp)
        self.down = nn.Linear(block.mlp, block.width)

    def forward(self, state: Float[Tensor, "B S C"]) -> Float[Tensor, "B S C"]:
        """Float32 in and out, products in the dtype of the weights."""
        dtype = self.qkv.weight.dtype
        state = state + self._attention(self.norm1(state).to(dtype))
        hidden = F.gelu(self.up(self.norm2(state).to(dtype)), approximate=self.approximate)
        result: Tensor = state + self.down(hidden)
        return result

    def _attention(self, x: Float[Tensor, "B S C"]) -> Float[Tensor, "B S C"]:
        q, k, v = rearrange(self.qkv(x), "b s (qkv h d) -> qkv b h s d", qkv=3, h=self.heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.out(rearrange(mixed, "b h s d -> b s (h d)"))
        return result


class VideoViT(nn.Module):
    """The model as far down as it is needed."""

    def __init__(self, size: VideoViTSize, *, n_blocks: int, normed: bool) -> None:
        super().__init__()
        self.grid, width = size.grid, size.block.width
        self.embedding = PatchEmbedding(size.patch, width)
        self.positions = nn.Parameter(torch.empty(size.grid.steps * size.grid.tokens_per_step, width))
        self.blocks = nn.ModuleList(Block(size) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width, eps=size.block.eps) if normed else None

    def forward(
        self, frames: Float[Tensor, "B F rgb Y X"], layers: tuple[Layer, ...]
    ) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        """Float32 tokens at `layers`, of which none is deeper than the model was made."""
        state = rearrange(self.embedding(frames), "b t n c -> b (t n) c") + self.positions
        kept = states_after(self.blocks, self.norm, state, layers)
        cut = {"t": self.grid.steps, "h": self.grid.rows, "w": self.grid.columns}
        return {layer: rearrange(kept[layer], "b (t h w) c -> b t h w c", **cut) for layer in layers}


def meta_model(size: VideoViTSize, *, n_blocks: int | None = None, normed: bool | None = None) -> VideoViT:
    """The model without memory behind it: whole, or cut after `n_blocks`."""
    with torch.device("meta"):
        model = VideoViT(
            size,
            n_blocks=size.depth if n_blocks is None else n_blocks,
            normed=size.final_norm if normed is None else normed,
        )
    return model.requires_grad_(False)


@dataclass(frozen=True, slots=True)
class Source:
    """Where one parameter of `VideoViT` comes from."""

    keys: Mapping[str, tuple[int, ...]]
    """Released key -> its shape in the file."""
    pieces: Callable[..., Iterable[Tensor]]
    """The parameter's parts along its first axis, from the tensors of `keys` in their order: views where that
    is possible, so that nothing is in memory twice."""

    def fill(self, parameter: Tensor, file: TensorFile) -> None:
        """Copy the numbers where they belong, cast on the way.

        On a GPU they travel as they are in the file: it transposes and casts faster than the host.
        """
        tensors = [file.read(key).to(parameter.device) for key in self.keys]
        start = 0
        for piece in self.pieces(*tensors):
            parameter[start : start + len(piece)].copy_(piece)
            start += len(piece)
        assert start == len(parameter), "the pieces of a checked file fill the parameter"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a released file holds one model."""

    sources: dict[str, Source]
    """Our parameter -> where it comes from, for every parameter of the whole model that the file can fill."""
    left_out: tuple[str, ...] = ()
    """Beginnings of the keys that tokens do not need."""

    @property
    def keys(self) -> Shapes:
        """Every released key that is used, and its shape."""
        return {key: shape for source in self.sources.values() for key, shape in source.keys.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What 4DS, V-JEPA and VideoMAEv2 do not share."""

    name: str
    layout: Callable[[VideoViTSize, Shapes], Layout]
    """From the model's size and the names in the file, where a family was released in several ways."""
    sections: tuple[str, ...] = ()
    """Where a torch pickle holds the model, the first that is there."""
    left_out_sections: tuple[str, ...] = ()
    """Other models in the same pickle."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoViTBackbone(OneFileBackbone):
    """One such model by name; see `featcache.backbones.base.Backbone` for what the methods promise."""

    size: VideoViTSize
    family: Family

    def architecture(self) -> base.JSON:
        """The size's numbers."""
        return {"family": self.family.name, **size_entry(self.size)}

    def model(self, n_blocks: int, normed: bool) -> nn.Module:
        """See `OneFileBackbone`."""
        return meta_model(self.size, n_blocks=n_blocks, normed=normed)

    def parameters(
        self, wanted: dict[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """See `OneFileBackbone`; norms and positions stay float32."""
        path = self.file()
        sections, left_out = self.family.sections, self.family.left_out_sections
        with open_tensors(path, sections=sections, left_out=left_out) as file:
            layout = self.family.layout(self.size, file.shapes)
            check_keys(file.shapes, layout.keys, left_out=layout.left_out, origin=str(path))
            if not layout.sources.keys() >= wanted.keys():
                raise WeightsError(
                    f"{path} holds no norm for tokens, only one for their mean: ask for layer "
                    f"{self.info.n_blocks} instead of {self.info.last_layer.name}, or use the file of the "
                    "pretraining."
                )
            # All memory first, then the numbers: what is needed on the way cannot leave holes between them.
            parameters = {
                name: torch.empty_like(tensor, dtype=torch.float32 if _exact(name) else dtype, device=device)
                for name, tensor in wanted.items()
            }
            for name, parameter in parameters.items():
                layout.sources[name].fill(parameter, file)
            return parameters


def timm_block(released: str, size: VideoViTSize) -> dict[str, Source]:
    """One block under the names of the timm library, which V-JEPA and VideoMAEv2 use; biases of qkv apart."""
    width, mlp = size.block.width, size.block.mlp
    shapes: Shapes = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (mlp, width),
        "mlp.fc1.bias": (mlp,),
        "mlp.fc2.weight": (width, mlp),
        "mlp.fc2.bias": (width,),
    }
    ours = {"attn.qkv": "qkv", "attn.proj": "out", "mlp.fc1": "up", "mlp.fc2": "down"}
    sources = {}
    for key, shape in shapes.items():
        module, _, parameter = key.rpartition(".")
        sources[f"{ours.get(module, module)}.{parameter}"] = Source({f"{released}{key}": shape}, as_it_is)
    return sources


def timm_ends(released: str, size: VideoViTSize, *, norm: bool) -> dict[str, Source]:
    """Patch embedding and final norm under the names of the timm library."""
    width = size.block.width
    patch, bias = f"{released}patch_embed.proj.weight", f"{released}patch_embed.proj.bias"
    ends = {
        "embedding.weight": Source({patch: (width, 3, *size.patch)}, as_it_is),
        "embedding.bias": Source({bias: (width,)}, as_it_is),
    }
    names = ("weight", "bias") if norm else ()
    return ends | {f"norm.{name}": Source({f"{released}norm.{name}": (width,)}, as_it_is) for name in names}


def as_it_is(tensor: Tensor) -> tuple[Tensor]:
    """The parameter is the file's tensor."""
    return (tensor,)


def _exact(name: str) -> bool:
    """Whether a parameter stays float32: few numbers, met by the float32 sum."""
    return name == "positions" or "norm" in name
