"""Heads of the reference implementation, evaluated here and given back: its names, layout, extras.

Training builds `LinearReadout` and `AttentionReadout`; this file fills the same classes from a flat Flax tree
(`key_embedding/kernel` -> array) and adds around them what only the reference's configurations ask for:
means over several test clips, un-patchified outputs, predictions shifted by an offset. `to_reference`
writes a head trained here as the tree that the reference restores.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from featcache.errors import CallError
from readouts.heads.attention import AttentionReadout, QueriedAttentionReadout, ResidualTrunk, Trunk
from readouts.heads.base import dense
from readouts.heads.linear import LinearReadout

Arrays = dict[str, np.ndarray]
"""Parameters or gradients of the reference by their path: `MLP_0/Dense_0/kernel`."""

_SAME, _KERNEL, _EMBEDDING = "... -> ...", "o i -> i o", "t c -> t 1 c"
_HEADS_KERNEL, _HEADS_BIAS = "(h d) i -> i h d", "(h d) -> h d"
_SHIFTED = "inner_readout/"


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
    """Frames, rows and columns of one query's patch."""

    def __post_init__(self) -> None:
        if (self.output_shape is None) != (self.decoding_patch_size is None):
            raise CallError("output_shape and decoding_patch_size go together: give both or neither.")
        if self.num_heads < 1 or self.num_params % self.num_heads:
            raise CallError(f"num_params={self.num_params} must be a multiple of num_heads={self.num_heads}.")


class DenseReadout(nn.Module):
    """A dense layer on the mean over any axes, or none: the linear readout where it keeps an axis."""

    def __init__(self, *, channels: int, n_outputs: int, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes
        self.classifier = dense(channels, n_outputs, generator=None)

    def forward(self, features: Float[Tensor, "*tokens C"]) -> Float[Tensor, "*kept O"]:
        """Outputs of what the mean leaves."""
        tokens = features.float()
        logits: Tensor = self.classifier(tokens.mean(dim=self.axes) if self.axes else tokens)
        return logits


class ReferenceReadout(nn.Module):
    """A head called as the reference calls it, with what its configuration does to the outputs."""

    def __init__(self, head: nn.Module, config: LinearConfig | AttentionConfig) -> None:
        super().__init__()
        self.head = head
        self.config = config

    def forward(
        self, inputs: Float[Tensor, "*tokens C"], queries: Float[Tensor, "B Q D"] | None = None
    ) -> Float[Tensor, "*outputs"]:
        """Logits [B, classes], with a query axis or as frames where configured; or mean probabilities.

        Raises:
            CallError: `queries` are missing, or given to a head that learned its own.
        """
        if (queries is not None) != isinstance(self.head, QueriedAttentionReadout):
            raise CallError(
                "this head has a learned query: call it without `queries`."
                if queries is not None
                else "this head projects queries from outside: call it with `queries` [B, Q, D]."
            )
        logits = self.head(inputs) if queries is None else self.head(inputs, queries)
        return self._mean_of_clips(self._unpatchified(logits))

    def _unpatchified(self, logits: Tensor) -> Tensor:
        config = self.config
        if isinstance(config, LinearConfig) or not (config.output_shape and config.decoding_patch_size):
            return logits
        patch = dict(zip(("pt", "py", "px"), config.decoding_patch_size, strict=True))
        size = zip(config.output_shape[:3], config.decoding_patch_size, strict=True)
        grid = dict(zip("tyx", (pixels // step for pixels, step in size), strict=True))
        return rearrange(logits, "b (t y x) (pt py px c) -> b (t pt) (y py) (x px) c", **patch, **grid)

    def _mean_of_clips(self, logits: Tensor) -> Tensor:
        if self.config.num_test_clips == 1 or self.training:
            return logits
        return reduce(logits.softmax(dim=-1), "(b n) ... -> b ...", "mean", n=self.config.num_test_clips)


class ShiftedReadout(nn.Module):
    """A regression around an offset (the reference's ShiftPred): the loss sees the unshifted prediction."""

    def __init__(self, readout: ReferenceReadout) -> None:
        super().__init__()
        self.readout = readout

    def forward(
        self, inputs: Float[Tensor, "B T N C"], output_offsets: Float[Tensor, "B O"]
    ) -> dict[str, Float[Tensor, "B O"]]:
        """`unshifted_pred`, and `shifted_pred` with the offsets added."""
        predicted = self.readout(inputs)
        return {"shifted_pred": predicted + output_offsets, "unshifted_pred": predicted}


def load_reference(
    kind: str, params: Mapping[str, Shaped[np.ndarray, "..."]], **config: Any
) -> ReferenceReadout | ShiftedReadout:
    """A head with the reference's parameters, in evaluation mode, called by the reference's input names.

    Args:
        kind: `linear` or `attention`.
        params: path -> array in the Flax layout; a common leading `readout_heads_<name>/` is ignored.
        config: the reference's constructor arguments, or `inner_readout` with those of a shifted head.

    Whether an attention head learned its queries or projects them from outside is read off its parameters.

    Raises:
        CallError: an argument is unknown, or parameters are missing, unused or of another shape (all listed).
    """
    if kind not in _LOADERS:
        raise CallError(f"the reference has no {kind!r} readout here: known are {', '.join(_LOADERS)}.")
    arrays = _without_head_name(params)
    if "inner_readout" not in config:
        return _LOADERS[kind](arrays, config).eval()
    if len(config) > 1:
        raise CallError(f"a shifted head takes inner_readout alone; given were {', '.join(sorted(config))}.")
    if outside := [name for name in arrays if not name.startswith(_SHIFTED)]:
        raise CallError(f"parameters of a shifted head lie under {_SHIFTED}; unused: {', '.join(outside)}.")
    inner = {name.removeprefix(_SHIFTED): array for name, array in arrays.items()}
    return ShiftedReadout(_LOADERS[kind](inner, config["inner_readout"])).eval()


def to_reference(module: nn.Module) -> Arrays:
    """The parameters of a head, trained here or loaded, by the reference's paths and in its layout."""
    return _in_reference_layout(module, {name: value.detach() for name, value in module.named_parameters()})


def gradients_to_reference(module: nn.Module) -> Arrays:
    """The gradients of a head after a backward pass, by the reference's paths and in its layout.

    Raises:
        CallError: a parameter has no gradient yet.
    """
    without = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    if without:
        raise CallError(f"{', '.join(without)} have no gradient: call backward first.")
    return _in_reference_layout(module, {name: p.grad for name, p in module.named_parameters()})


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a parameter of the reference lives here, and how ours turns into its layout."""

    name: str
    pattern: str
    heads: int = 0

    def to_reference(self, ours: Tensor) -> np.ndarray:
        array: np.ndarray = rearrange(ours, self.pattern, **self._axes).cpu().numpy().copy()
        return array

    def from_reference(self, theirs: np.ndarray) -> Tensor:
        left, right = self.pattern.split(" -> ")
        array = rearrange(np.asarray(theirs, dtype=np.float32), f"{right} -> {left}", **self._axes)
        return torch.from_numpy(np.array(array))

    @property
    def _axes(self) -> dict[str, int]:
        return {"h": self.heads} if "h" in self.pattern else {}


_Places = dict[str, _Place]


def _linear_places() -> _Places:
    return _dense_places("Dense_0", "classifier")


def _attention_places(*, heads: int, residual: bool, temporal: bool, external: bool) -> _Places:
    projection = ["trunk.projection"] if residual else []
    dense_layers = [*(["query_projection"] if external else []), *projection, "classifier"]
    places: _Places = {} if external else {"query": _Place("query", _SAME)}
    for number, ours in enumerate(dense_layers):
        places |= _dense_places(f"Dense_{number}", ours)
    for theirs in ("key", "value"):
        ours = f"trunk.attention.{theirs}"
        places[f"{theirs}_embedding/kernel"] = _Place(f"{ours}.weight", _HEADS_KERNEL, heads)
        if residual:
            places[f"{theirs}_embedding/bias"] = _Place(f"{ours}.bias", _HEADS_BIAS, heads)
    if temporal:
        places["temporal_posenc/embeddings"] = _Place("trunk.temporal", _EMBEDDING)
    if residual:
        places |= _norm_places("LayerNorm_0", "trunk.norm") | _norm_places("LayerNorm_1", "trunk.mlp_norm")
        places |= _dense_places("MLP_0/Dense_0", "trunk.mlp.0")
        places |= _dense_places("MLP_0/Dense_1", "trunk.mlp.2")
    return places


def _dense_places(theirs: str, ours: str) -> _Places:
    return {
        f"{theirs}/kernel": _Place(f"{ours}.weight", _KERNEL),
        f"{theirs}/bias": _Place(f"{ours}.bias", _SAME),
    }


def _norm_places(theirs: str, ours: str) -> _Places:
    return {
        f"{theirs}/scale": _Place(f"{ours}.weight", _SAME),
        f"{theirs}/bias": _Place(f"{ours}.bias", _SAME),
    }


def _places_of(head: nn.Module) -> _Places:
    if isinstance(head, LinearReadout | DenseReadout):
        return _linear_places()
    if isinstance(head, AttentionReadout | QueriedAttentionReadout):
        return _attention_places(
            heads=head.trunk.attention.heads,
            residual=isinstance(head.trunk, ResidualTrunk),
            temporal=head.trunk.temporal is not None,
            external=isinstance(head, QueriedAttentionReadout),
        )
    raise CallError(f"the reference has no readout like {type(head).__name__}.")


def _in_reference_layout(module: nn.Module, ours: Mapping[str, Any]) -> Arrays:
    before, prefix, head = "", "", module
    if isinstance(head, ShiftedReadout):
        before, prefix, head = _SHIFTED, "readout.", head.readout
    if isinstance(head, ReferenceReadout):
        prefix, head = f"{prefix}head.", head.head
    return {
        f"{before}{theirs}": place.to_reference(ours[prefix + place.name])
        for theirs, place in _places_of(head).items()
    }


def _without_head_name(params: Mapping[str, Any]) -> dict[str, Any]:
    first = {name.partition("/")[0] for name in params}
    if len(first) == 1 and (prefix := first.pop()).startswith("readout_heads_"):
        return {name.removeprefix(f"{prefix}/"): array for name, array in params.items()}
    return dict(params)


_Config = TypeVar("_Config", LinearConfig, AttentionConfig)


def _parsed(kind: type[_Config], entries: Mapping[str, Any]) -> _Config:
    """Lists become tuples, as JSON has no tuples; every other check is the dataclass's own."""
    known = [field.name for field in fields(kind)]
    if unknown := [name for name in entries if name not in known]:
        raise CallError(f"{kind.__name__} has no {', '.join(unknown)}: known are {', '.join(known)}.")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in entries.items()}
    try:
        return kind(**values)
    except TypeError as missing:
        raise CallError(f"{missing}: known are {', '.join(known)}.") from None


def _load_linear(params: Mapping[str, Any], entries: Mapping[str, Any]) -> ReferenceReadout:
    config = _parsed(LinearConfig, entries)
    places = _linear_places()
    _check_names(params, places)
    channels = len(params["Dense_0/kernel"])
    if set(config.reduce_axis) == {-2, -3}:
        head: nn.Module = LinearReadout(channels=channels, n_outputs=config.num_classes)
    else:
        head = DenseReadout(channels=channels, n_outputs=config.num_classes, axes=config.reduce_axis)
    return ReferenceReadout(_filled(head, params, places), config)


def _load_attention(params: Mapping[str, Any], entries: Mapping[str, Any]) -> ReferenceReadout:
    config = _parsed(AttentionConfig, entries)
    last_dense = 2 if config.match_vjepa_implementation else 1
    external = "query" not in params and f"Dense_{last_dense}/kernel" in params
    places = _attention_places(
        heads=config.num_heads,
        residual=config.match_vjepa_implementation,
        temporal=config.add_temporal_posenc,
        external=external,
    )
    _check_names(params, places)
    shape: dict[str, Any] = {
        "channels": len(params["key_embedding/kernel"]),
        "steps": len(params["temporal_posenc/embeddings"]) if config.add_temporal_posenc else None,
        "n_outputs": config.num_classes,
        "width": config.num_params,
        "heads": config.num_heads,
        "dropout": config.dropout_rate,
        "trunk": ResidualTrunk if config.match_vjepa_implementation else Trunk,
    }
    if external:
        head: nn.Module = QueriedAttentionReadout(query_channels=len(params["Dense_0/kernel"]), **shape)
    else:
        head = AttentionReadout(n_queries=config.num_queries, **shape)
    return ReferenceReadout(_filled(head, params, places), config)


_LOADERS = {"linear": _load_linear, "attention": _load_attention}


def _check_names(params: Mapping[str, Any], places: _Places) -> None:
    wrong = {
        "missing": sorted(places.keys() - params.keys()),
        "unused": sorted(params.keys() - places.keys()),
    }
    if any(wrong.values()):
        told = "; ".join(f"{what}: {', '.join(names)}" for what, names in wrong.items() if names)
        raise CallError(f"these are not the parameters of the configured readout; {told}.")


def _filled(head: nn.Module, params: Mapping[str, Any], places: _Places) -> nn.Module:
    expected = {name: array.shape for name, array in to_reference(head).items()}
    wrong = [
        f"{name} is {params[name].shape}, not {shape}"
        for name, shape in expected.items()
        if params[name].shape != shape
    ]
    if wrong:
        raise CallError(f"parameters do not fit the configured readout: {'; '.join(wrong)}.")
    head.load_state_dict({place.name: place.from_reference(params[name]) for name, place in places.items()})
    return head
