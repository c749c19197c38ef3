"""Heads of the reference implementation, evaluated here: its names, its layout.

What training builds is filled here from a flat Flax tree (`key_embedding/kernel` -> array), class for class.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Shaped
from torch import nn

from featcache.errors import CallError
from readouts.heads.attention import AttentionReadout, QueriedAttentionReadout
from readouts.heads.dpt import DensePrediction
from readouts.heads.linear import LinearReadout
from readouts.heads.reference.configs import (
    AttentionConfig,
    DPTConfig,
    ForecastConfig,
    LinearConfig,
    TrackingConfig,
    parsed,
)
from readouts.heads.reference.modules import (
    DenseReadout,
    PlainAttentionReadout,
    PlainTrunk,
    ReferenceDPT,
    ReferenceForecast,
    ReferenceReadout,
    ReferenceTracking,
    ShiftedReadout,
)
from readouts.heads.reference.parameters import parameters_of
from readouts.heads.tracking import TrackingReadout

_INNER = "inner_readout/"


def load_reference(kind: str, params: Mapping[str, Shaped[np.ndarray, "..."]], **config: Any) -> nn.Module:
    """A head with the reference's parameters, in evaluation mode, called by the reference's input names.

    Args:
        kind: `linear`, `attention`, `tracking` or `dpt`.
        params: path -> array in the Flax layout; a common leading `readout_heads_<name>/` is ignored.
        config: the reference's constructor arguments. Of a head inside another, `inner_readout` holds its
            own: alone for a shifted regression, beside `residual_mean` and `residual_std` for a forecast.

    Whether an attention head learned its queries or projects them from outside is read off its parameters.

    Raises:
        CallError: an argument is unknown, or parameters are missing, unused or of another shape (all listed).
    """
    if kind not in _LOADERS:
        raise CallError(f"the reference has no {kind!r} readout here: known are {', '.join(_LOADERS)}.")
    arrays = _without_head_name(params)
    if "inner_readout" in config:
        return _load_outer(kind, arrays, config).eval()
    return _LOADERS[kind](arrays, config).eval()


def _without_head_name(params: Mapping[str, Any]) -> dict[str, Any]:
    first = {name.partition("/")[0] for name in params}
    if len(first) == 1 and (prefix := first.pop()).startswith("readout_heads_"):
        return {name.removeprefix(f"{prefix}/"): array for name, array in params.items()}
    return dict(params)


def _load_outer(kind: str, params: Mapping[str, Any], entries: Mapping[str, Any]) -> nn.Module:
    around = {name: entry for name, entry in entries.items() if name != "inner_readout"}
    if kind not in ("linear", "attention", "dpt"):
        raise CallError(f"the reference puts no {kind} readout into another: give its arguments directly.")
    if kind != "dpt" and around:
        raise CallError(f"a shifted head takes inner_readout alone; given were {', '.join(sorted(entries))}.")
    if outside := [name for name in params if not name.startswith(_INNER)]:
        raise CallError(f"parameters of an inner readout lie under {_INNER}; unused: {', '.join(outside)}.")
    inner = {name.removeprefix(_INNER): array for name, array in params.items()}
    readout = _LOADERS[kind](inner, entries["inner_readout"])
    if kind == "dpt":
        return ReferenceForecast(readout, parsed(ForecastConfig, around))
    return ShiftedReadout(readout)


def _load_linear(params: Mapping[str, Any], entries: Mapping[str, Any]) -> nn.Module:
    config = parsed(LinearConfig, entries)
    channels = _length(params, "Dense_0/kernel")
    if set(config.reduce_axis) == {-2, -3}:
        head: nn.Module = LinearReadout(channels=channels, n_outputs=config.num_classes)
    else:
        head = DenseReadout(channels=channels, n_outputs=config.num_classes, axes=config.reduce_axis)
    return ReferenceReadout(_filled(head, params), config)


def _load_attention(params: Mapping[str, Any], entries: Mapping[str, Any]) -> nn.Module:
    config = parsed(AttentionConfig, entries)
    trunk: dict[str, Any] = {
        "channels": _length(params, "key_embedding/kernel"),
        "steps": _steps(params, "temporal_posenc/embeddings") if config.add_temporal_posenc else None,
        "width": config.num_params,
        "heads": config.num_heads,
        "dropout": config.dropout_rate,
    }
    is_plain, n_outputs = not config.match_vjepa_implementation, config.num_classes
    if "query" not in params and f"Dense_{1 if is_plain else 2}/kernel" in params:
        query_channels = _length(params, "Dense_0/kernel")
        head: nn.Module = QueriedAttentionReadout(query_channels=query_channels, n_outputs=n_outputs, **trunk)
    else:
        readout = PlainAttentionReadout if is_plain else AttentionReadout
        head = readout(n_queries=config.num_queries, n_outputs=n_outputs, **trunk)
    if is_plain:
        head.register_module("trunk", PlainTrunk(**trunk))
    return ReferenceReadout(_filled(head, params), config)


def _load_tracking(params: Mapping[str, Any], entries: Mapping[str, Any]) -> nn.Module:
    config = parsed(TrackingConfig, entries)
    head = TrackingReadout(
        channels=_length(params, "attention_readout/key_embedding/kernel"),
        steps=_steps(params, "attention_readout/temporal_posenc/embeddings"),
        n_frames=config.num_frames,
        temporal_tiles=config.temporal_tile_size,
        n_outputs_per_point=config.outputs_per_point,
        width=config.num_params,
        heads=config.num_heads,
        dropout=config.dropout_rate,
        n_bases=config.num_fourier_bases,
        mlp_hidden=config.mlp_hidden,
        query_channels=config.mlp_output,
    )
    return ReferenceTracking(_filled(head, params), config)


def _load_dpt(params: Mapping[str, Any], entries: Mapping[str, Any]) -> nn.Module:
    config = parsed(DPTConfig, entries)
    out_rows, out_columns = config.output_resolution
    head = DensePrediction(
        channels=_length(
            params, "DensePredictionTransformer_0/ReassembleBlock4/conv_resample_0/kernel", axis=2
        ),
        n_frames=config.pred_seq_len,
        n_variables=config.output_channels,
        out_rows=out_rows,
        out_columns=out_columns,
        features=config.dpt_feature_dims,
        head_channels=config.dpt_intermediate_channels,
    )
    return ReferenceDPT(_filled(head, params))


_LOADERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], nn.Module]] = {
    "linear": _load_linear,
    "attention": _load_attention,
    "tracking": _load_tracking,
    "dpt": _load_dpt,
}


def _length(params: Mapping[str, Any], name: str, *, axis: int = 0) -> int:
    """A size that only a parameter tells; of a missing one, which `_filled` reports, any will do."""
    return int(params[name].shape[axis]) if name in params else 1


def _steps(params: Mapping[str, Any], name: str) -> int:
    """As many as the embedding has, which of a single step is a flat vector of channels."""
    return 1 if name in params and params[name].ndim == 1 else _length(params, name)


_Head = TypeVar("_Head", bound=nn.Module)


def _filled(head: _Head, params: Mapping[str, Any]) -> _Head:
    theirs = parameters_of(head)
    named = {
        "missing": sorted(theirs.keys() - params.keys()),
        "unused": sorted(params.keys() - theirs.keys()),
    }
    if any(named.values()):
        told = "; ".join(f"{what}: {', '.join(names)}" for what, names in named.items() if names)
        raise CallError(f"these are not the parameters of the configured readout; {told}.")
    ours = head.state_dict()
    shapes = {path: entry.to_reference(ours[entry.name]).shape for path, entry in theirs.items()}
    wrong = [
        f"{path} is {params[path].shape}, not {shape}"
        for path, shape in shapes.items()
        if params[path].shape != shape
    ]
    if wrong:
        raise CallError(f"parameters do not fit the configured readout: {'; '.join(wrong)}.")
    head.load_state_dict({entry.name: entry.from_reference(params[path]) for path, entry in theirs.items()})
    return head
