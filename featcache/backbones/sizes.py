"""The numbers that make a vision transformer, and what follows from them: token grid, parameters, cost.

Plain numbers, so that listing backbones imports neither torch nor transformers. Parameters and arithmetic are
computed from the sizes; the tests hold them against published counts.
"""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal

from featcache.errors import CallError
from featcache.spec import TokenGrid

Grid = tuple[int, int, int]
"""(steps, rows, columns)."""


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
    """The epsilon of every LayerNorm."""

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.mlp) < 1 or self.width % self.heads:
            raise CallError(
                f"width {self.width}, {self.heads} heads, MLP {self.mlp}: all must be positive, and the "
                "width a multiple of the heads."
            )

    @property
    def n_params(self) -> int:
        """Number of parameters of one block, norms and biases included."""
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
    """Blocks on the patches of a clip, then a norm: V-JEPA 2 (Assran et al., 2025); others add to it."""

    block: BlockSize
    depth: int
    """Number of blocks, of all stages."""
    patch: Grid
    """(frames, rows, columns) of one token."""
    input_size: tuple[int, int]
    """(rows, columns) of a frame, in pixels."""
    n_frames: int = 16

    def __post_init__(self) -> None:
        video = (self.n_frames, *self.input_size)
        if any(size % patch for size, patch in zip(video, self.patch, strict=True)):
            raise CallError(f"patches of {self.patch} do not divide {video} (frames, rows, columns).")

    @property
    def grid(self) -> TokenGrid:
        """(steps, rows, columns, channels) of the tokens of one clip."""
        video = (self.n_frames, *self.input_size)
        steps, rows, columns = (size // patch for size, patch in zip(video, self.patch, strict=True))
        return TokenGrid(steps=steps, rows=rows, columns=columns, channels=self.block.width)

    @property
    def n_tokens(self) -> int:
        """Tokens of one clip, all steps together."""
        return self.grid.steps * self.grid.tokens_per_step

    @property
    def n_params(self) -> int:
        """Parameters as released: patch embedding, blocks, and what else the family has."""
        embedding = (3 * prod(self.patch) + 1) * self.block.width
        return embedding + self.depth * self.block.n_params + self.other_params

    @property
    def other_params(self) -> int:
        """Parameters beside patch embedding and blocks; here those of the final norm."""
        return 2 * self.block.width

    @property
    def gflop(self) -> float:
        """10^9 operations a clip, 2 x multiply-adds, attention included, norms and activations not."""
        embedding = self.n_tokens * 3 * prod(self.patch) * self.block.width
        blocks = (depth * n * self.block.multiply_adds(length) for depth, n, length in self.stages)
        return 2 * (embedding + sum(blocks)) / 1e9

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """(blocks, sequences of a clip, tokens of each); here every token of a clip attends to all others."""
        return ((self.depth, 1, self.n_tokens),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dinov2Size(ViTSize):
    """DINOv2 (Oquab et al., TMLR 2024): frames by themselves, a class token, learned positions."""

    table: int = 37
    """Rows, and columns, of the released position table."""

    @property
    def other_params(self) -> int:
        """The position table, class token and its position, mask token, final norm."""
        return (self.table**2 + 1 + 4) * self.block.width

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """A sequence for each frame, with its class token."""
        return ((self.depth, self.grid.steps, self.grid.tokens_per_step + 1),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dinov3Size(ViTSize):
    """DINOv3 (Siméoni et al., 2025): frames by themselves, a class token, registers, rotated positions."""

    registers: int = 4
    """Tokens that only take part in attention."""

    @property
    def other_params(self) -> int:
        """Class token, registers, mask token, final norm."""
        return (self.registers + 4) * self.block.width

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """A sequence for each frame, with its class token and registers."""
        return ((self.depth, self.grid.steps, self.grid.tokens_per_step + 1 + self.registers),)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoPrismSize(ViTSize):
    """VideoPrism (Zhao et al., ICML 2024): blocks over each frame's tokens, then over each patch's steps.

    `depth` counts the blocks of both stages.
    """

    temporal_depth: int = 4
    table: Grid = (16, 16, 16)
    """(steps, rows, columns) of the released position tables, stretched where a clip has others."""
    soft_cap: float = 50.0
    """Attention logits x become soft_cap * tanh(x / soft_cap)."""

    @property
    def spatial_depth(self) -> int:
        """Blocks over the tokens of one frame."""
        return self.depth - self.temporal_depth

    @property
    def other_params(self) -> int:
        """Both stages' position tables and norms."""
        steps, rows, columns = self.table
        return (steps + rows * columns + 4) * self.block.width

    @property
    def stages(self) -> tuple[tuple[int, int, int], ...]:
        """A sequence for each frame, then one for each patch."""
        steps, n_patches = self.grid.steps, self.grid.tokens_per_step
        return ((self.spatial_depth, steps, n_patches), (self.temporal_depth, n_patches, steps))


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoViTSize(ViTSize):
    """4DS (Carreira et al., 2024), V-JEPA (Bardes et al., TMLR 2024), VideoMAEv2 (Wang et al., CVPR 2023)."""

    positions: Literal["stored", "sinusoid"]
    """A table in the weight file, or VideoMAE's sinusoid of the token number, which no file holds."""
    table: Grid | None = None
    """(steps, rows, columns) of a stored table made for clips of another size, stretched to this one's."""
    gelu: Literal["erf", "tanh"] = "erf"
    """The exact function, or its approximation."""
    final_norm: bool = True

    def __post_init__(self) -> None:
        # Not super(): a dataclass with slots is made anew, and its methods still mean the first one.
        ViTSize.__post_init__(self)
        if self.table is not None and (self.positions != "stored" or min(self.table) < 1):
            raise CallError(f"table {self.table} must be positive, and goes with stored positions only.")

    @property
    def stored_grid(self) -> Grid:
        """(steps, rows, columns) of the position table as released."""
        return self.table or self.grid.shape[:3]

    @property
    def other_params(self) -> int:
        """A stored position table, and the last norm, whatever it is applied to."""
        table = prod(self.stored_grid) if self.positions == "stored" else 0
        return (table + 2 * self.final_norm) * self.block.width


@dataclass(frozen=True, kw_only=True, slots=True)
class Vjepa21Size(ViTSize):
    """V-JEPA 2.1 (Mur-Labadia et al., 2026): a vector for its kind of input, norms at four depths.

    Patches of one frame are those of the images that it was also trained on; they take a clip of one frame.
    """

    levels: tuple[int, ...]
    """Blocks after each of which the model has a norm of its own; the last is the last block."""
    distilled: bool = False
    """Whether it was distilled from a larger one: its file then calls the encoder to use otherwise."""

    def __post_init__(self) -> None:
        ViTSize.__post_init__(self)
        frames, rows, columns = self.patch
        if frames == 1 and self.n_frames != 1:
            raise CallError(
                f"patches of one frame are V-JEPA 2.1's for single images, not for {self.n_frames} frames: "
                "cut patches of two."
            )
        if min(self.input_size[0] // rows, self.input_size[1] // columns) < 2:
            raise CallError(
                f"an input of {self.input_size} pixels is one patch of {rows} x {columns} high or wide, and "
                "has no place on V-JEPA 2.1's grid: give it two patches or more."
            )
        if tuple(sorted(self.levels)) != self.levels or self.levels[-1] != self.depth:
            raise CallError(f"levels {self.levels} must ascend to the last of {self.depth} blocks.")

    @property
    def other_params(self) -> int:
        """The vector of clips, four norms; what only images use is left out."""
        return (1 + 2 * len(self.levels)) * self.block.width


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoMAESize(ViTSize):
    """VideoMAE (Tong et al., NeurIPS 2022), whose sinusoid of positions has no parameters."""

    activation: str = "gelu"
    """The MLP's activation, as transformers names it."""
    final_norm: bool = True
    """False for fine-tuned models, which normalise the mean of the tokens instead of the tokens."""

    @property
    def other_params(self) -> int:
        """The final norm, where there is one."""
        return 2 * self.block.width * self.final_norm


def size_entry(size: ViTSize) -> dict[str, Any]:
    """The numbers of a size as plain JSON for the fingerprint: lists for tuples."""
    return asdict(size, dict_factory=lambda entries: {key: _plain(value) for key, value in entries})


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
