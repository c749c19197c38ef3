"""What is registered of a model: what it is, its sizes, its release, its family; and what follows from them.

Plain values: `catalogue` has those of every model.
"""

from dataclasses import dataclass
from typing import Any

from featcache.backbones.base import BackboneInfo, Upsampling, block_at_fraction
from featcache.backbones.release import Release
from featcache.backbones.sizes import ViTSize
from featcache.spec import Layer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


BFLOAT16_OFF = {
    "videomae": 0.009, "dinov2": 0.009, "dinov3": 0.009, "videoprism": 0.009, "fourds": 0.005,
    "videomaev2": 0.006, "vjepa": 0.006, "vjepa2": 0.011, "vjepa21": 0.006,
}  # fmt: skip
"""Family -> how far tokens in bfloat16 are from those in float32: RMS over the spread, by random weights of
the smallest model from B up (`python -m tests.benchmarks.bfloat16_cost`, torch 2.13 on a CPU).
"""

CLIPS_A_SECOND = {
    "dinov2_b": 0.18, "dinov3_b": 0.22, "videomae_random_b": 0.29, "videomaev2_b": 0.30, "4ds_b_dist_e": 0.27,
    "videoprism_b": 0.19,
}  # fmt: skip
"""Name -> clips a second in bfloat16 on two cores of a CPU, which other work shared (`python
tests/benchmarks/backbone_speed.py`, the table of `LOG.md`): nothing is recorded of others, or of a GPU.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """One registered model: what it is, its size, its files, and who makes it."""

    family: str
    """The module of `featcache.backbones.families` whose `open_model` makes it."""
    info: BackboneInfo
    size: Any = None
    """The numbers of its architecture, a `ViTSize`; none for what is no model."""
    release: Release | None = None
    """Where its weights are; none for what needs none."""


def vit_info(
    name: str, family: str, size: ViTSize, *, title: str | None = None, release: Release | None = None
) -> BackboneInfo:
    """What follows from a model's family and size, and from where its weights come."""
    final_norm = getattr(size, "final_norm", True)
    plain = family in ("fourds", "videoprism")
    upsampling: Upsampling | None = "cubic" if family == "fourds" else "linear"
    if size.grid.steps == size.n_frames:
        upsampling = None
    return BackboneInfo(
        name=name,
        title=title or name,
        source=release.source if release else "this machine",
        licence=release.licence if release else "that of its files",
        commercial=release.commercial if release else False,
        public=release.public if release else False,
        params_m=size.n_params / 1e6,
        gflop=size.gflop,
        n_blocks=size.depth,
        input_size=size.input_size,
        n_frames=size.n_frames,
        grid=size.grid,
        mean=None if plain else IMAGENET_MEAN,
        std=None if plain else IMAGENET_STD,
        final_norm=final_norm,
        levels=getattr(size, "levels", ())[:-1],
        default_layers=(_default_layer(family, size.depth, final_norm),),
        upsampling=upsampling,
        frame_level=family in ("dinov2", "dinov3"),
    )


def _default_layer(family: str, depth: int, final_norm: bool) -> Layer:
    """The model's own output, as the benchmark's public code reads it whatever its configs name; but for two.

    4DS is read at 0.95 of its depth, for every task. VideoMAEv2's files on the hub hold no norm for tokens,
    those of the pretraining do: the default needs none.
    """
    if family == "fourds":
        return Layer(block_at_fraction(0.95, depth))
    return Layer(depth, final_norm and family != "videomaev2")
