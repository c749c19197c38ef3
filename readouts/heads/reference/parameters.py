"""Where each parameter of the reference lives here: its path, our name, and how the two layouts map.

A place turns an array both ways, so that loading, writing back and gradients cannot disagree.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from featcache.errors import CallError
from readouts.heads.attention import AttentionReadout, QueriedAttentionReadout, ResidualTrunk
from readouts.heads.convolution import SameConvTranspose
from readouts.heads.dpt import DensePrediction
from readouts.heads.linear import LinearReadout
from readouts.heads.reference.modules import DenseReadout, FourierEmbedding, Persistence
from readouts.heads.tracking import TrackingReadout

_SAME, _KERNEL, _EMBEDDING = "... -> ...", "o i -> i o", "t c -> t 1 c"
_HEADS_KERNEL, _HEADS_BIAS = "(h d) i -> i h d", "(h d) -> h d"
_CONV_KERNEL, _TRANSPOSED_KERNEL = "o i y x -> y x i o", "i o y x -> y x i o"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a parameter of the reference lives here, and how ours turns into its layout."""

    name: str
    pattern: str = _SAME
    heads: int = 0
    turned: bool = False
    """A kernel whose rows and columns run backwards there."""

    def to_reference(self, ours: Tensor) -> np.ndarray:
        """A copy in the reference's layout."""
        array: np.ndarray = rearrange(ours, self.pattern, **self._axes).cpu().numpy()
        return (array[::-1, ::-1] if self.turned else array).copy()

    def from_reference(self, theirs: np.ndarray) -> Tensor:
        """A copy in ours, in float32."""
        left, right = self.pattern.split(" -> ")
        array = np.asarray(theirs, dtype=np.float32)
        array = rearrange(array[::-1, ::-1] if self.turned else array, f"{right} -> {left}", **self._axes)
        return torch.from_numpy(np.array(array))

    @property
    def _axes(self) -> dict[str, int]:
        return {"h": self.heads} if self.heads else {}


Places = dict[str, Place]
"""The parameters of a head by the reference's paths: `MLP_0/Dense_0/kernel`."""


def places_of(head: nn.Module) -> Places:
    """Every parameter of a head that the reference has too.

    Raises:
        CallError: it has no readout of this class.
    """
    if isinstance(head, LinearReadout | DenseReadout):
        return linear_places()
    if isinstance(head, AttentionReadout | QueriedAttentionReadout):
        return attention_places(
            heads=head.trunk.attention.heads,
            residual=isinstance(head.trunk, ResidualTrunk),
            temporal=head.trunk.temporal is not None,
            external=isinstance(head, QueriedAttentionReadout),
        )
    if isinstance(head, TrackingReadout):
        return tracking_places(heads=head.attention.trunk.attention.heads)
    if isinstance(head, DensePrediction):
        return dpt_places(head)
    if isinstance(head, FourierEmbedding):
        return embedding_places(projects=head.projection is not None)
    if isinstance(head, Persistence):
        return {}
    raise CallError(f"the reference has no readout like {type(head).__name__}.")


def linear_places() -> Places:
    """Of LinearReadout."""
    return _dense_places("Dense_0", "classifier")


def attention_places(*, heads: int, residual: bool, temporal: bool, external: bool) -> Places:
    """Of AttentionReadout: its dense layers are numbered in the order in which the variant uses them."""
    projection = ["trunk.projection"] if residual else []
    dense_layers = [*(["query_projection"] if external else []), *projection, "classifier"]
    places: Places = {} if external else {"query": Place(name="query")}
    for number, ours in enumerate(dense_layers):
        places |= _dense_places(f"Dense_{number}", ours)
    for theirs in ("key", "value"):
        ours = f"trunk.attention.{theirs}"
        places[f"{theirs}_embedding/kernel"] = Place(
            name=f"{ours}.weight", pattern=_HEADS_KERNEL, heads=heads
        )
        if residual:
            places[f"{theirs}_embedding/bias"] = Place(name=f"{ours}.bias", pattern=_HEADS_BIAS, heads=heads)
    if temporal:
        places["temporal_posenc/embeddings"] = Place(name="trunk.temporal", pattern=_EMBEDDING)
    if residual:
        places |= _norm_places("LayerNorm_0", "trunk.norm") | _norm_places("LayerNorm_1", "trunk.mlp_norm")
        places |= mlp_places("MLP_0/", "trunk.mlp.")
    return places


def tracking_places(*, heads: int) -> Places:
    """Of TrackingReadoutWrapper with the benchmark's attention and query initializer."""
    attention = attention_places(heads=heads, residual=True, temporal=True, external=True)
    return {
        **_nested("attention_readout/", "attention.", attention),
        **mlp_places("query_initializer/layers_1/", "point_mlp."),
        "temporal_tile_posenc/embeddings": Place(name="tile"),
    }


def dpt_places(head: DensePrediction) -> Places:
    """Of DPTReadout: every convolution by its block and number."""
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
    places: Places = {}
    for theirs, ours in names.items():
        transposed = isinstance(head.get_submodule(ours), SameConvTranspose)
        places |= conv_places(f"DensePredictionTransformer_0/{theirs}/", f"{ours}.", transposed=transposed)
    return places


def embedding_places(*, projects: bool) -> Places:
    """Of the Fourier embeddings, which have parameters only where they project."""
    return _dense_places("dense_pe", "projection") if projects else {}


def mlp_places(theirs: str, ours: str) -> Places:
    """Of an MLP with one hidden layer."""
    return _dense_places(f"{theirs}Dense_0", f"{ours}0") | _dense_places(f"{theirs}Dense_1", f"{ours}2")


def conv_places(theirs: str, ours: str, *, transposed: bool) -> Places:
    """Of one convolution of two axes."""
    pattern = _TRANSPOSED_KERNEL if transposed else _CONV_KERNEL
    return {
        f"{theirs}kernel": Place(name=f"{ours}weight", pattern=pattern, turned=transposed),
        f"{theirs}bias": Place(name=f"{ours}bias"),
    }


def _dense_places(theirs: str, ours: str) -> Places:
    return {
        f"{theirs}/kernel": Place(name=f"{ours}.weight", pattern=_KERNEL),
        f"{theirs}/bias": Place(name=f"{ours}.bias"),
    }


def _norm_places(theirs: str, ours: str) -> Places:
    return {
        f"{theirs}/scale": Place(name=f"{ours}.weight"),
        f"{theirs}/bias": Place(name=f"{ours}.bias"),
    }


def _nested(theirs: str, ours: str, places: Places) -> Places:
    return {theirs + path: replace(place, name=ours + place.name) for path, place in places.items()}
