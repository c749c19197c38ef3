"""Sizes of DINOv2, DINOv3, V-JEPA 2 and VideoPrism, and what follows from them: grids, parameters, cost.

The catalogue's other half: plain numbers, so that listing backbones imports neither torch nor transformers.
Parameters and arithmetic are computed from the sizes; the tests hold them against published counts.
"""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from featcache.errors import CallError
from featcache.spec import TokenGrid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSize:
    """The numbers that make one pre-norm transformer block."""

    width: int
    heads: int
    mlp: int
    """Channels between the two layers of the MLP; of each of its two halves where it is gated."""
    gated: bool = False
    """SwiGLU (Shazeer, 2020) instead of GELU."""
    scaled: bool = False
    """Whether each residual is scaled a channel at a time (LayerScale, Touvron et al., ICCV 2021)."""
    biases: str = "qkv"
    """Which of query, key and value have one."""
    eps: float = 1e-6
    """Of every LayerNorm."""

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.mlp) < 1 or self.width % self.heads:
            raise CallError(
                f"width {self.width}, {self.heads} heads, MLP {self.mlp}: all must be positive, and the "
                "width a multiple of the heads."
            )

    @property
    def n_params(self) -> int:
        """Parameters of one block."""
        attention = 4 * self.width**2 + (len(self.biases) + 1) * self.width
        mlp = self._matrices * self.width * self.mlp + (self._matrices - 1) * self.mlp + self.width
        return attention + mlp + (6 if self.scaled else 4) * self.width

    def multiply_adds(self, n_tokens: int) -> int:
        """Of one block on one sequence: products with weights, and the two products of attention."""
        weights = 4 * self.width**2 + self._matrices * self.width * self.mlp
        return n_tokens * weights + 2 * n_tokens**2 * self.width

    @property
    def _matrices(self) -> int:
        return 3 if self.gated else 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ViTSize:
    """A stack of blocks on the patches of a clip: the numbers that all four families share."""

    block: BlockSize
    depth: int
    patch: tuple[int, int, int]
    """(frames, rows, columns) of one token."""
    input_size: tuple[int, int]
    n_frames: int = 16

    def __post_init__(self) -> None:
        video = (self.n_frames, *self.input_size)
        if any(size % patch for size, patch in zip(video, self.patch, strict=True)):
            raise CallError(f"patches of {self.patch} do not divide {video} (frames, rows, columns).")

    @property
    def grid(self) -> TokenGrid:
        """Tokens of one clip."""
        video = (self.n_frames, *self.input_size)
        steps, rows, columns = (size // patch for size, patch in zip(video, self.patch, strict=True))
        return TokenGrid(steps=steps, rows=rows, columns=columns, channels=self.block.width)

    @property
    def patch_values(self) -> int:
        """Numbers that one token is embedded from."""
        return 3 * prod(self.patch)

    @property
    def embedding_params(self) -> int:
        """Of the patch embedding, bias included."""
        return (self.patch_values + 1) * self.block.width

    @property
    def embedding_multiply_adds(self) -> int:
        """Of the patch embedding, one clip."""
        return self.grid.steps * self.grid.tokens_per_step * self.patch_values * self.block.width


@dataclass(frozen=True, kw_only=True, slots=True)
class Dinov2Size(ViTSize):
    """DINOv2 (Oquab et al., TMLR 2024): frames by themselves, a class token, learned positions."""

    table: int = 37
    """Rows, and columns, of the released position table: that of 518 pixels."""

    @property
    def n_params(self) -> int:
        """As released, so with the whole position table and the mask token."""
        table = (1 + self.table**2) * self.block.width
        return self.embedding_params + table + self.depth * self.block.n_params + 4 * self.block.width

    @property
    def gflop(self) -> float:
        """10^9 operations a clip, 2 x multiply-adds."""
        return _frame_gflop(self, n_extra=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dinov3Size(ViTSize):
    """DINOv3 (Siméoni et al., 2025): frames by themselves, a class token, registers, rotated positions."""

    registers: int = 4

    @property
    def n_params(self) -> int:
        """As released, so with the mask token."""
        extra = (2 + self.registers + 2) * self.block.width
        return self.embedding_params + extra + self.depth * self.block.n_params

    @property
    def gflop(self) -> float:
        """10^9 operations a clip, 2 x multiply-adds."""
        return _frame_gflop(self, n_extra=1 + self.registers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Vjepa2Size(ViTSize):
    """V-JEPA 2's encoder (Assran et al., 2025): tubelets, positions by rotation along three axes."""

    @property
    def n_params(self) -> int:
        """Of the encoder."""
        return self.embedding_params + self.depth * self.block.n_params + 2 * self.block.width

    @property
    def gflop(self) -> float:
        """10^9 operations a clip, 2 x multiply-adds."""
        n_tokens = self.grid.steps * self.grid.tokens_per_step
        return 2 * (self.embedding_multiply_adds + self.depth * self.block.multiply_adds(n_tokens)) / 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoPrismSize(ViTSize):
    """VideoPrism (Zhao et al., ICML 2024): blocks over each frame's tokens, then over each place's steps.

    `depth` counts the blocks of both stages.
    """

    temporal_depth: int = 4
    table: tuple[int, int, int] = (16, 16, 16)
    """(steps, rows, columns) of the released position tables, stretched where a clip has others."""
    soft_cap: float = 50.0
    """Attention logits x become soft_cap * tanh(x / soft_cap)."""

    @property
    def spatial_depth(self) -> int:
        """Blocks over the tokens of one frame."""
        return self.depth - self.temporal_depth

    @property
    def n_params(self) -> int:
        """As released: both stages with their position tables and norms."""
        steps, rows, columns = self.table
        tables = (steps + rows * columns) * self.block.width
        return self.embedding_params + tables + self.depth * self.block.n_params + 4 * self.block.width

    @property
    def gflop(self) -> float:
        """10^9 operations a clip, 2 x multiply-adds."""
        grid, block = self.grid, self.block
        spatial = self.spatial_depth * grid.steps * block.multiply_adds(grid.tokens_per_step)
        temporal = self.temporal_depth * grid.tokens_per_step * block.multiply_adds(grid.steps)
        return 2 * (self.embedding_multiply_adds + spatial + temporal) / 1e9


def _frame_gflop(size: ViTSize, n_extra: int) -> float:
    """Of an image model whose frames have `n_extra` tokens beside their patches."""
    per_frame = size.depth * size.block.multiply_adds(size.grid.tokens_per_step + n_extra)
    return 2 * (size.embedding_multiply_adds + size.n_frames * per_frame) / 1e9


def _dinov2(width: int, depth: int, heads: int, mlp: int, *, gated: bool = False) -> Dinov2Size:
    block = BlockSize(width=width, heads=heads, mlp=mlp, gated=gated, scaled=True)
    return Dinov2Size(block=block, depth=depth, patch=(1, 14, 14), input_size=(224, 224))


def _dinov3(
    width: int, depth: int, heads: int, mlp: int, *, gated: bool = False, biases: str = "qv"
) -> Dinov3Size:
    block = BlockSize(width=width, heads=heads, mlp=mlp, gated=gated, scaled=True, biases=biases, eps=1e-5)
    return Dinov3Size(block=block, depth=depth, patch=(1, 16, 16), input_size=(224, 224))


def _vjepa2(width: int, depth: int, heads: int, mlp: int, side: int = 256) -> Vjepa2Size:
    block = BlockSize(width=width, heads=heads, mlp=mlp)
    return Vjepa2Size(block=block, depth=depth, patch=(2, 16, 16), input_size=(side, side))


def _videoprism(width: int, spatial_depth: int, heads: int, mlp: int, steps: int) -> VideoPrismSize:
    block = BlockSize(width=width, heads=heads, mlp=mlp)
    return VideoPrismSize(
        block=block,
        depth=spatial_depth + 4,
        patch=(1, 18, 18),
        input_size=(288, 288),
        table=(steps, 16, 16),
    )


DINOV2_SIZES: dict[str, Dinov2Size] = {
    "dinov2_s": _dinov2(384, 12, 6, 1536),
    "dinov2_b": _dinov2(768, 12, 12, 3072),
    "dinov2_l": _dinov2(1024, 24, 16, 4096),
    "dinov2_g": _dinov2(1536, 40, 24, 4096, gated=True),
}

VIDEOPRISM_SIZES: dict[str, VideoPrismSize] = {
    "videoprism_b": _videoprism(768, 12, 12, 3072, steps=16),
    "videoprism_l": _videoprism(1024, 24, 16, 4096, steps=8),
    "videoprism_g": _videoprism(1408, 40, 16, 6144, steps=8),
}

VJEPA2_SIZES: dict[str, Vjepa2Size] = {
    "vjepa2_l": _vjepa2(1024, 24, 16, 4096),
    "vjepa2_h": _vjepa2(1280, 32, 16, 5120),
    "vjepa2_g": _vjepa2(1408, 40, 22, 6144),
    "vjepa2_g384": _vjepa2(1408, 40, 22, 6144, side=384),
}

DINOV3_SIZES: dict[str, Dinov3Size] = {
    "dinov3_s": _dinov3(384, 12, 6, 1536),
    "dinov3_b": _dinov3(768, 12, 12, 3072),
    "dinov3_l": _dinov3(1024, 24, 16, 4096),
    "dinov3_hplus": _dinov3(1280, 32, 20, 5120, gated=True),
    "dinov3_7b": _dinov3(4096, 40, 32, 8192, gated=True, biases=""),
}


def size_entry(size: Any) -> dict[str, Any]:
    """The numbers of a size, a dataclass, as plain JSON for the fingerprint: lists for tuples."""
    return asdict(size, dict_factory=lambda entries: {key: _plain(value) for key, value in entries})


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
