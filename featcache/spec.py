"""Shapes, names and sizes of clips and features: values only, no I/O, no torch.

The one legend of axis letters, used by names, docstrings, annotations, Zarr `dimension_names` and plots.
A letter means one thing: frames are of a video, steps are of tokens.

    pixels: B clips   F frames   Y rows   X columns   C channels
    tokens: B clips   V views    T steps  N tokens per step (N = H * W, H rows, W columns)   C channels
    heads:  B clips   Q queries  O outputs (classes, lead hours, ...)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from featcache.errors import CallError, DataError, did_you_mean

SHUFFLED = "_shuffled"
"""Ending of a backbone, in paths and tables, whose clips had their frames shuffled."""

TRACKS_AT_ONCE = 64
"""Tracks of a clip that a training step draws, and that are scored (PROTOCOL: tissue)."""

Sampling = Literal["clip", "middle_clip", "linspace_clip"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSpec:
    """Which frames of a video make one clip, and the size the reader gives them."""

    n_frames: int = 16
    stride: int = 1
    """Source frames from one sampled frame to the next; without meaning for `linspace_clip`."""
    sampling: Sampling = "clip"
    height: int = 224
    width: int = 224

    def __post_init__(self) -> None:
        for name in ("n_frames", "stride", "height", "width"):
            if getattr(self, name) < 1:
                raise CallError(f"clip {name}={getattr(self, name)} must be at least 1.")


StartRule = Literal["random_clip", "window"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Starts:
    """A training clip's first frame, where it is random but one of few: view v starts at frame v."""

    rule: StartRule
    """The reference's `random_clip`, whose last start is never drawn, or its `TemporalRandomWindow`, where
    it is.
    """
    span: int
    """Frames from the first input to the last target."""
    n_starts: int

    def __post_init__(self) -> None:
        if self.span < 1 or self.n_starts < 1:
            raise CallError(f"starts span={self.span}, n_starts={self.n_starts} must be at least 1.")

    def choices(self, n_source: int) -> range:
        """The first frames that the reference may draw from `n_source` frames, all equally likely.

        Raises:
            DataError: there are more of them than `n_starts`, or a window is longer than its source.
        """
        if self.rule == "random_clip":
            return random_clip_starts(self.span, 1, n_source, max_start=self.n_starts)
        found = window_starts(self.span, n_source)
        if n_source < self.span or len(found) > self.n_starts:
            raise DataError(
                f"{n_source} frames have {max(0, n_source - self.span + 1)} windows of {self.span}; from 1 "
                f"to {self.n_starts} are stored: correct `starts` in the manifest, or skip such clips."
            )
        return found


def random_clip_starts(n_frames: int, stride: int, n_source: int, max_start: int | None = None) -> range:
    """First frames that the reference's `random_clip` may draw.

    The start after which exactly a clip's frames are left is never among them, unless it is the only one.
    `max_start` cuts the source to `n_frames + max_start` frames first (typhoon: 24 + 8, so starts 0 to 7).
    """
    require_frames(n_source)
    usable = n_source if max_start is None else min(n_source, n_frames + max_start)
    return range(max(1, usable - n_frames * stride))


def window_starts(n_frames: int, n_source: int) -> range:
    """First frames of the reference's `TemporalRandomWindow` (MOVi-E): here the last start is included."""
    require_frames(n_source)
    return range(max(0, n_source - n_frames) + 1)


def require_frames(n_source: int) -> None:
    """Refuse a source without frames; raises DataError."""
    if n_source < 1:
        raise DataError(f"a clip cannot be cut from {n_source} frames: the source is empty, skip it.")


@dataclass(frozen=True, order=True, slots=True)
class Layer:
    """Tokens after `block` transformer blocks (0: the token embedding), as they are or normed.

    The norm is the model's own: after its last block, of a few models at other depths, too.
    """

    block: int
    normed: bool = False

    def __post_init__(self) -> None:
        if self.block < 0:
            raise CallError(f"layer {self.block} is negative: blocks count from 0, the token embedding.")

    @property
    def name(self) -> str:
        """The layer as stored and printed: `11`, or `12_normed` after the model's final norm."""
        return f"{self.block}_normed" if self.normed else str(self.block)

    @property
    def array(self) -> str:
        """The name of the layer's array in a store."""
        return f"tokens_{self.name}"

    @property
    def scale_array(self) -> str:
        """The name of the array of its scales, in an int8 store."""
        return f"scales_{self.name}"

    @classmethod
    def parse(cls, name: str) -> "Layer":
        """Read back what `name` wrote."""
        block, _, suffix = name.partition("_")
        if not block.isdigit() or suffix not in ("", "normed"):
            raise CallError(f"{name!r} is not a layer: write a block number such as 11, or 12_normed.")
        return cls(int(block), suffix == "normed")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenGrid:
    """The native token grid of one clip: what a backbone gives, before any up-sampling."""

    steps: int
    rows: int
    columns: int
    channels: int

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise CallError(f"token grid {self.shape} has an empty axis.")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(step, row, column, channel)."""
        return (self.steps, self.rows, self.columns, self.channels)

    @property
    def tokens_per_step(self) -> int:
        """N of the legend: rows times columns."""
        return self.rows * self.columns

    @property
    def nbytes(self) -> int:
        """Bytes of one clip and view in float16."""
        return 2 * self.steps * self.rows * self.columns * self.channels


SEVERITIES: Mapping[str, tuple[float, float, float]] = {
    "blur": (1.0, 2.0, 4.0),  # standard deviation of a Gaussian, in pixels of the clip
    "noise": (0.05, 0.1, 0.2),  # standard deviation of Gaussian noise, black to white being 1
    "occlusion": (0.25, 0.4, 0.6),  # side of a grey rectangle as a share of the frame's, in one place
    "compression": (30.0, 15.0, 5.0),  # quality of JPEG
    "dropped": (0.25, 0.5, 0.75),  # share of the frames in whose place the one before stays
    "reversed": (0.25, 0.5, 1.0),  # share of the clip that is played backwards, piece by piece
}
"""How clips are corrupted on purpose, to be scored by readouts that learned from clips as filmed: kind -> its
amount at severity 1, 2 and 3."""


@dataclass(frozen=True, order=True, slots=True)
class Corruption:
    """One kind of `SEVERITIES` at one severity; `featcache.data.corruptions` makes the pixels."""

    kind: str
    severity: int

    def __post_init__(self) -> None:
        if self.kind not in SEVERITIES:
            raise CallError(
                f"no corruption is called {self.kind!r}: there are {', '.join(SEVERITIES)}."
                f"{did_you_mean(self.kind, SEVERITIES)}"
            )
        if not 1 <= self.severity <= len(SEVERITIES[self.kind]):
            raise CallError(f"{self.kind}:{self.severity}: severities are 1 to {len(SEVERITIES[self.kind])}.")

    @property
    def amount(self) -> float:
        """As `SEVERITIES` has it."""
        return SEVERITIES[self.kind][self.severity - 1]

    @property
    def ending(self) -> str:
        """What the names of backbones end with, in paths and tables, whose clips were corrupted so."""
        return f"_{self.kind}{self.severity}"

    def as_dict(self) -> dict[str, object]:
        """For the fingerprint."""
        return {"kind": self.kind, "severity": self.severity, "amount": self.amount}


def parse_corruptions(text: str) -> tuple[Corruption, ...]:
    """Those that `text` names, each once: `all`, or with commas `blur` (at every severity) and `blur:2`.

    Raises:
        CallError: no such kind or severity.
    """
    found: dict[Corruption, None] = {}
    for word in SEVERITIES if text.strip() == "all" else text.split(","):
        kind, colon, severity = word.strip().partition(":")
        if colon and not severity.isdigit():
            raise CallError(f"{word.strip()!r} is no corruption: write blur:2, blur, or all.")
        every = range(1, 1 + len(SEVERITIES.get(kind, (0.0,))))
        found |= {Corruption(kind, number): None for number in ([int(severity)] if colon else every)}
    return tuple(found)
