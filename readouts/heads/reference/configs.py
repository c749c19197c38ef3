"""Constructor arguments of the reference's readouts, under its own names, checked at birth.

People give `load_reference` what a configuration of the reference says, so the names and defaults here are
not ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from featcache.errors import CallError


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearConfig:
    """Constructor arguments of the reference's LinearReadout."""

    num_classes: int
    reduce_axis: tuple[int, ...] = ()
    num_test_clips: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionConfig:
    """Constructor arguments of the reference's AttentionReadout."""

    num_classes: int
    num_params: int
    num_heads: int
    num_queries: int = 1
    match_vjepa_implementation: bool = True
    add_temporal_posenc: bool = True
    num_test_clips: int = 1
    dropout_rate: float = 0.0
    output_shape: tuple[int, ...] | None = None
    """Frames, rows, columns, and channels where there is more than one."""
    decoding_patch_size: tuple[int, ...] | None = None
    """Frames, rows and columns of the patch that one query decodes."""

    def __post_init__(self) -> None:
        if (self.output_shape is None) != (self.decoding_patch_size is None):
            raise CallError("output_shape and decoding_patch_size go together: give both or neither.")
        if self.num_heads < 1 or self.num_params % self.num_heads:
            raise CallError(f"num_params={self.num_params} must be a multiple of num_heads={self.num_heads}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackingConfig:
    """Arguments of the reference's TrackingReadoutWrapper, and of the attention and embedding inside it."""

    num_classes: int
    """Outputs a query: frames a query times outputs a point."""
    num_params: int
    num_heads: int
    num_frames: int = 16
    temporal_tile_size: int = 8
    num_frames_per_query: int = 2
    mlp_hidden: int = 512
    mlp_output: int = 512
    num_fourier_bases: int = 16
    update_type: str = "replace"
    output_activation: str = "sigmoid"
    predict_visibility: bool = True
    use_certainty: bool = True
    certainty_threshold: float = 0.5
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        if self.use_certainty and not self.predict_visibility:
            raise CallError("use_certainty refines visibility: set predict_visibility, or neither.")
        if (self.update_type, self.output_activation) != ("replace", "sigmoid"):
            raise CallError(
                f"update_type={self.update_type!r} and output_activation={self.output_activation!r} are not "
                "supported: tracking heads of the benchmark have replace and sigmoid."
            )
        if self.num_frames != self.temporal_tile_size * self.num_frames_per_query:
            raise CallError(
                f"num_frames={self.num_frames} must be temporal_tile_size={self.temporal_tile_size} times "
                f"num_frames_per_query={self.num_frames_per_query}."
            )
        if self.num_classes != self.outputs_per_point * self.num_frames_per_query:
            raise CallError(
                f"num_classes={self.num_classes} must be {self.outputs_per_point} outputs a point times "
                f"num_frames_per_query={self.num_frames_per_query}."
            )

    @property
    def outputs_per_point(self) -> int:
        """Two for x and y, one each for visibility and certainty where they are predicted."""
        return 2 + self.predict_visibility + self.use_certainty


@dataclass(frozen=True, kw_only=True, slots=True)
class DPTConfig:
    """Constructor arguments of the reference's DPTReadout."""

    output_resolution: tuple[int, int]
    pred_seq_len: int
    output_channels: int
    dpt_feature_dims: tuple[int, int, int, int]
    """Channels of the levels, coarse to fine."""
    dpt_intermediate_channels: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastConfig:
    """Constructor arguments of the reference's UnnormalizePredAndAddInput, beside its inner readout."""

    residual_mean: tuple[float, ...]
    residual_std: tuple[float, ...]


Config = TypeVar("Config", LinearConfig, AttentionConfig, TrackingConfig, DPTConfig, ForecastConfig)


def parsed(kind: type[Config], entries: Mapping[str, Any]) -> Config:
    """A configuration from JSON's values: lists become tuples, every other check is the dataclass's own.

    Raises:
        CallError: an argument is unknown, missing or refused.
    """
    known = [field.name for field in fields(kind)]
    if unknown := [name for name in entries if name not in known]:
        raise CallError(f"{kind.__name__} has no {', '.join(unknown)}: known are {', '.join(known)}.")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in entries.items()}
    try:
        return kind(**values)
    except TypeError as missing:
        raise CallError(f"{missing}: known are {', '.join(known)}.") from None
