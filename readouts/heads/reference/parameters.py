"""Where each parameter of the reference lives here: its path, our name, and how the two layouts map.

An entry turns an array both ways, so that what is loaded can be compared with what the reference saved.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from featcache.errors import CallError
from readouts.heads.attention import AttentionReadout, QueriedAttentionReadout, Trunk
from readouts.heads.convolution import SameConvTranspose
from readouts.heads.dpt import DensePrediction
from readouts.heads.linear import LinearReadout
from readouts.heads.reference.modules import DenseReadout
from readouts.heads.tracking import TrackingReadout

_SAME, _KERNEL = "... -> ...", "o i -> i o"
_EMBEDDING, _OF_ONE_STEP = "t c -> t 1 c", "1 c -> c"
"""The reference leaves leading axes of one out."""
_HEADS_KERNEL, _HEADS_BIAS = "(h d) i -> i h d", "(h d) -> h d"
_CONV_KERNEL, _TRANSPOSED_KERNEL = "o i y x -> y x i o", "i o y x -> y x i o"


@dataclass(frozen=True, kw_only=True, slots=True)
class FlaxParameter:
    """What a parameter of the reference is called here, and how ours turns into its layout."""

    name: str
    pattern: str = _SAME
    """The einops pattern from our axes to Flax's."""
    heads: int = 0
    turned: bool = False
    """Whether the kernel's rows and columns run backwards there."""

    def to_reference(self, ours: Tensor) -> np.ndarray:
        """Return a copy in the reference's layout."""
        array: np.ndarray = rearrange(ours, self.pattern, **self._axes).cpu().numpy()
        return (array[::-1, ::-1] if self.turned else array).copy()

    def from_reference(self, theirs: np.ndarray) -> Tensor:
        """Return a copy in our layout, in float32."""
        left, right = self.pattern.split(" -> ")
        array = np.asarray(theirs, dtype=np.float32)
        array = rearrange(array[::-1, ::-1] if self.turned else array, f"{right} -> {left}", **self._axes)
        return torch.from_numpy(np.array(array))

    @property
    def _axes(self) -> dict[str, int]:
        return {"h": self.heads} if self.heads else {}


FlaxParameters = dict[str, FlaxParameter]
"""The parameters of a head by the reference's paths: `MLP_0/Dense_0/kernel`."""


def parameters_of(head: nn.Module) -> FlaxParameters:
    """Every parameter of a head by its path in the reference's readout.

    Raises:
        CallError: the reference has no readout of this class.
    """
    if isinstance(head, LinearReadout | DenseReadout):
        return _dense("Dense_0", "classifier")
    if isinstance(head, AttentionReadout | QueriedAttentionReadout):
        return attention_parameters(
            heads=head.trunk.attention.heads,
            residual=isinstance(head.trunk, Trunk),
            steps=None if head.trunk.temporal is None else len(head.trunk.temporal),
            external=isinstance(head, QueriedAttentionReadout),
        )
    if isinstance(head, TrackingReadout):
        trunk = head.attention.trunk
        assert trunk.temporal is not None, "it has positions in time"
        return tracking_parameters(heads=trunk.attention.heads, steps=len(trunk.temporal))
    if isinstance(head, DensePrediction):
        return dpt_parameters(head)
    raise CallError(f"the reference has no readout like {type(head).__name__}.")


def attention_parameters(*, heads: int, residual: bool, steps: int | None, external: bool) -> FlaxParameters:
    """The parameters of AttentionReadout, whose dense layers are numbered in the order of their use.

    Of one that has no positions in time `steps` are None.
    """
    projection = ["trunk.projection"] if residual else []
    dense_layers = [*(["query_projection"] if external else []), *projection, "classifier"]
    parameters: FlaxParameters = {} if external else {"query": FlaxParameter(name="query")}
    for number, ours in enumerate(dense_layers):
        parameters |= _dense(f"Dense_{number}", ours)
    for kind in ("key", "value"):
        theirs, ours = f"{kind}_embedding", f"trunk.attention.{kind}"
        kernel = FlaxParameter(name=f"{ours}.weight", pattern=_HEADS_KERNEL, heads=heads)
        parameters[f"{theirs}/kernel"] = kernel
        if residual:
            bias = FlaxParameter(name=f"{ours}.bias", pattern=_HEADS_BIAS, heads=heads)
            parameters[f"{theirs}/bias"] = bias
    if steps is not None:
        pattern = _OF_ONE_STEP if steps == 1 else _EMBEDDING
        parameters["temporal_posenc/embeddings"] = FlaxParameter(name="trunk.temporal", pattern=pattern)
    if residual:
        parameters |= _norm("LayerNorm_0", "trunk.norm") | _norm("LayerNorm_1", "trunk.mlp_norm")
        parameters |= _mlp("MLP_0/", "trunk.mlp.")
    return parameters


def tracking_parameters(*, heads: int, steps: int) -> FlaxParameters:
    """The parameters of TrackingReadoutWrapper with the benchmark's attention and query initializer."""
    attention = attention_parameters(heads=heads, residual=True, steps=steps, external=True)
    return {
        **{
            f"attention_readout/{path}": replace(p, name=f"attention.{p.name}")
            for path, p in attention.items()
        },
        **_mlp("query_initializer/layers_1/", "point_mlp."),
        "temporal_tile_posenc/embeddings": FlaxParameter(name="tile"),
    }


def dpt_parameters(head: DensePrediction) -> FlaxParameters:
    """The parameters of DPTReadout, whose convolutions are named by block and number."""
    names = {"conv_head_0": "head", "conv_head_2": "output"}
    for level, fusion in head.fusion.items():
        reassemble, fuse = f"ReassembleBlock{level}/conv_resample", f"FusionBlock{level}/conv_fusion"
        names |= {
            f"{reassemble}_0": f"reassemble.{level}.project",
            f"{reassemble}_1": f"reassemble.{level}.resample",
            f"{fuse}_out": f"fusion.{level}.project",
        }
        for number, unit in enumerate(("lateral", "refine")):
            if getattr(fusion, unit) is not None:
                names[f"{fuse}_{number}_0"] = f"fusion.{level}.{unit}.first"
                names[f"{fuse}_{number}_1"] = f"fusion.{level}.{unit}.second"
    parameters: FlaxParameters = {}
    for theirs, ours in names.items():
        transposed = isinstance(head.get_submodule(ours), SameConvTranspose)
        path = f"DensePredictionTransformer_0/{theirs}/"
        parameters |= conv_parameters(path, f"{ours}.", transposed=transposed)
    return parameters


def conv_parameters(theirs: str, ours: str, *, transposed: bool) -> FlaxParameters:
    """Kernel and bias of one convolution over rows and columns."""
    pattern = _TRANSPOSED_KERNEL if transposed else _CONV_KERNEL
    return {
        f"{theirs}kernel": FlaxParameter(name=f"{ours}weight", pattern=pattern, turned=transposed),
        f"{theirs}bias": FlaxParameter(name=f"{ours}bias"),
    }


def _mlp(theirs: str, ours: str) -> FlaxParameters:
    return _dense(f"{theirs}Dense_0", f"{ours}0") | _dense(f"{theirs}Dense_1", f"{ours}2")


def _dense(theirs: str, ours: str) -> FlaxParameters:
    return {
        f"{theirs}/kernel": FlaxParameter(name=f"{ours}.weight", pattern=_KERNEL),
        f"{theirs}/bias": FlaxParameter(name=f"{ours}.bias"),
    }


def _norm(theirs: str, ours: str) -> FlaxParameters:
    return {
        f"{theirs}/scale": FlaxParameter(name=f"{ours}.weight"),
        f"{theirs}/bias": FlaxParameter(name=f"{ours}.bias"),
    }
