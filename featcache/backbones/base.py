"""What a frozen model must offer, what is known of it in advance, and how a layer is chosen.

No torch is imported here: listing backbones and planning an extraction need only the values. A user's own
model is any object with the attributes of `Backbone`, named on the command line as `my_model.py:BACKBONE`.
"""

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from featcache.errors import CallError
from featcache.spec import Layer, TokenGrid

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

Upsampling = Literal["linear", "cubic"]
JSON = dict[str, object]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneInfo:
    """What is known of a backbone before its weights are opened."""

    name: str
    """As asked for, and part of every store's file name: letters, digits, `.`, `_` and `-`."""
    title: str
    source: str
    licence: str
    commercial: bool
    """Whether the licence of the weights allows commercial use."""
    public: bool
    """Whether anybody can get the weights without asking."""
    params_m: float
    """Millions of parameters that a clip passes through."""
    gflop: float | None = None
    """Arithmetic of one clip through all blocks: 2 x multiply-adds, in 10^9, attention included."""
    n_blocks: int
    input_size: tuple[int, int]
    """(rows, columns) the model sees; frames of another size are resized by exact overlap."""
    n_frames: int = 16
    """Frames of one clip, also for image models, which see them as a batch."""
    grid: TokenGrid
    mean: tuple[float, float, float] | None = None
    """Subtracted from pixels in [0, 1], a channel at a time; absent with `std`: pixels go in as they are."""
    std: tuple[float, float, float] | None = None
    final_norm: bool = True
    """Whether the model normalises its last block's tokens: only then `<n_blocks>_normed` exists."""
    levels: tuple[int, ...] = ()
    """Blocks before the last after which the model has a norm of its own, too: `<block>_normed`."""
    default_layers: tuple[Layer, ...]
    upsampling: Upsampling | None = None
    """How the benchmark stretches the tokens in time before a readout; never stored."""
    resize_once: bool = False
    """Whether the task's resize and that to `input_size` are done in one, so that frames of the task's size
    are never made: for a model that sees tiny ones. Last bits differ from those of two resizes.
    """
    frame_level: bool = False
    """Whether each step's tokens are of its own frame alone, whatever the others are: an image model. Then
    frames that clips share are computed and stored once.
    """
    weights_from: str | None = None
    """Where weights of the user's own came from: a file, a folder, a repository; None of released ones."""
    control: str | None = None
    """A label such as `random weights` for rows that show what the question scores without the model."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise CallError(
                f"backbone name {self.name!r} becomes a file name: use letters, digits, '.', '_', '-'."
            )
        if self.n_blocks < 0 or self.n_frames < 1 or min(self.input_size) < 1:
            raise CallError(
                f"backbone {self.name}: {self.n_blocks} blocks, {self.n_frames} frames and input "
                f"{self.input_size} must all be positive (blocks may be 0)."
            )
        if (self.mean is None) != (self.std is None):
            raise CallError(f"backbone {self.name}: give both mean and std, or neither.")
        if self.frame_level and self.grid.steps != self.n_frames:
            raise CallError(
                f"backbone {self.name} is frame_level with {self.grid.steps} steps of {self.n_frames} "
                "frames: each frame must have its own step."
            )
        if not self.default_layers:
            raise CallError(f"backbone {self.name}: default_layers is empty, give one or more.")
        for layer in self.default_layers:
            check_layer(layer, self)

    @property
    def readout_steps(self) -> int:
        """Steps that the benchmark's readouts see: one a frame where the tokens are stretched."""
        return self.n_frames if self.upsampling else self.grid.steps

    @property
    def norms(self) -> tuple[int, ...]:
        """The blocks after which the model has a norm of its own."""
        return (*self.levels, self.n_blocks) if self.final_norm else self.levels

    @property
    def last_layer(self) -> Layer:
        """The model's own output: the last block, normed where the model does so."""
        return Layer(self.n_blocks, self.final_norm)


@runtime_checkable
class Encoder(Protocol):
    """Loaded weights on a device: pixels to tokens."""

    def __call__(self, pixels: "Float[Tensor, 'B F rgb Y X']") -> "dict[Layer, Float[Tensor, 'B T H W C']]":
        """Tokens of every layer that was asked for, float32, on the model's own grid, in one pass.

        `pixels` are RGB in [0, 1], any size, `info.n_frames` frames; resizing, mean and std happen inside.

        Raises:
            CallError: another number of frames or channels.
        """
        ...


@runtime_checkable
class Backbone(Protocol):
    """One frozen model by name; cheap to make, its weights are opened when a method needs them."""

    @property
    def info(self) -> BackboneInfo:
        """What is known of the model before its weights are opened."""
        ...

    def weights_digest(self) -> str:
        """Sha256 of the weights' bytes, or a word where there are none.

        Raises:
            WeightsError: they are missing; says where to get them.
        """
        ...

    def architecture(self) -> JSON:
        """All that defines the function beside the weights, for the fingerprint.

        Raises:
            WeightsError: the file that says so is missing or does not fit.
        """
        ...

    def preprocessing(self) -> JSON:
        """What happens to pixels before the model, for the fingerprint."""
        ...

    def load(self, layers: tuple[Layer, ...], device: "torch.device", dtype: "torch.dtype") -> Encoder:
        """Read the weights that `layers` need, nothing after the deepest of them.

        Raises:
            WeightsError: weights are missing or do not fit.
            CallError: a layer the model does not have.
        """
        ...


def preprocessing(info: BackboneInfo) -> JSON:
    """The fingerprint entry of the usual preprocessing: exact-overlap resize, then mean and std."""
    return {
        "n_frames": info.n_frames,
        "input_size": list(info.input_size),
        "resize": "area, in one with the task's" if info.resize_once else "area",
        "range": [0.0, 1.0],
        "mean": None if info.mean is None else list(info.mean),
        "std": None if info.std is None else list(info.std),
    }


def grid_entry(info: BackboneInfo) -> JSON:
    """The fingerprint entry of the token grid."""
    return asdict(info.grid)


def resolve_layers(text: str, info: BackboneInfo) -> tuple[Layer, ...]:
    """The layers that `text` asks for, ascending, each once.

    `text` is `default`, `levels` (of a model with norms at several depths: the tokens after each of them), or
    a comma-separated list of depth fractions (`0.95`, always with a point), block numbers (`11`; 0 is the
    token embedding) and `<n_blocks>_normed` (after the model's final norm).

    Raises:
        CallError: not a layer, or not one of this model; says the range.
    """
    if text.strip() == "default":
        return tuple(sorted(set(info.default_layers)))
    if text.strip() == "levels" and info.levels:
        return tuple(Layer(block, normed=True) for block in info.norms)
    return tuple(sorted({_layer(item.strip(), info) for item in text.split(",")}))


def check_layer(layer: Layer, info: BackboneInfo) -> None:
    """Refuse a layer that the model does not have.

    Raises:
        CallError: says which there are.
    """
    if layer.block > info.n_blocks:
        raise CallError(f"layer {layer.name}: {info.name} has {_range(info)}.")
    if layer.normed and layer.block not in info.norms:
        why = "the norm belongs after the last block" if info.final_norm else "the model ends without a norm"
        why = "no norm of the model's belongs there" if info.levels else why
        raise CallError(f"layer {layer.name}: {why}. {info.name} has {_range(info)}.")


def block_at_fraction(fraction: float, n_blocks: int) -> int:
    """Blocks to run for the benchmark's `readout_depth_fraction`.

    The published code collects [tokens, input of block 0, ..., input of block L-1], L + 1 entries with the
    token embedding twice and without the last block's output, and takes entry int((L + 1) * fraction) - 1.
    Entry k is thus the output of max(k - 1, 0) blocks; the -1 of a tiny model wraps to the last entry, as in
    Python.
    """
    entry = int((n_blocks + 1) * fraction) - 1
    return max(entry % (n_blocks + 1) - 1, 0)


def _layer(item: str, info: BackboneInfo) -> Layer:
    if "." in item:
        return Layer(block_at_fraction(_fraction(item, info), info.n_blocks))
    try:
        layer = Layer.parse(item)
    except CallError:
        raise CallError(
            f"{item!r} is not a layer: write default, a depth fraction such as 0.95, or a block number. "
            f"{info.name} has {_range(info)}."
        ) from None
    check_layer(layer, info)
    return layer


def _fraction(item: str, info: BackboneInfo) -> float:
    try:
        fraction = float(item)
    except ValueError:
        fraction = -1.0
    if not 0 < fraction <= 1:
        raise CallError(
            f"{item!r} is not a depth fraction: write a number above 0 and up to 1.0, such as 0.95, or "
            f"a block number. {info.name} has {_range(info)}."
        )
    return fraction


def _range(info: BackboneInfo) -> str:
    normed = f" and {info.last_layer.name} after the final norm" if info.final_norm else ""
    if info.levels:
        normed = f" and, each after a norm of its own, {', '.join(f'{block}_normed' for block in info.norms)}"
    return f"blocks 0 (the token embedding) to {info.n_blocks}{normed}"
