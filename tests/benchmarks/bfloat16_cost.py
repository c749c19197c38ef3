"""What bfloat16 costs, a family at a time: how far its tokens are from those of float32.

    python -m tests.benchmarks.bfloat16_cost [--backbones 4ds_l,vjepa2_g] [--device cuda]

Random weights at full width and depth, one clip of smooth noise: RMS of the difference over the standard
deviation of the float32 tokens, after the first block and at the layer that is stored by default. Trained
weights have sharper attention and larger outliers, so this is the rounding's share alone; what it does to a
score is told by the same task in both precisions. `BFLOAT16_OFF` of the catalogue records it.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from featcache.backbones.base import BackboneInfo
from featcache.spec import Layer
from featcache.system.device import choose_device, device_name
from tests.benchmarks.random_backbones import random_backbone

ONE_A_FAMILY = (
    "videomae_b", "dinov2_b", "dinov3_b", "videoprism_b", "4ds_b_dist_e", "videomaev2_b", "vjepa_l",
    "vjepa2_l", "vjepa21_b",
)  # fmt: skip
"""The smallest of at least B's size."""


def smooth_clips(n: int, info: BackboneInfo, device: torch.device) -> torch.Tensor:
    """Random clips that vary from patch to patch: noise of single pixels is no picture."""
    generator = torch.Generator(device).manual_seed(0)
    coarse = torch.rand(n * info.n_frames, 3, 14, 14, device=device, generator=generator)
    frames = torch.nn.functional.interpolate(coarse, size=info.input_size, mode="bilinear")
    return frames.unflatten(0, (n, info.n_frames))


def off_float32(name: str, device: torch.device, *, depth: int | None = None) -> dict[Layer, float]:
    """RMS of bfloat16's tokens minus float32's, over the spread of the latter, by layer."""
    backbone = random_backbone(name, device, depth=depth)
    layers = tuple(sorted({Layer(1), backbone.info.default_layers[0]}))
    pixels = smooth_clips(1, backbone.info, device)
    rounded, exact = (
        backbone.load(layers, device, dtype)(pixels) for dtype in (torch.bfloat16, torch.float32)
    )
    return {layer: rms_over_spread(rounded[layer], exact[layer]) for layer in layers}


def rms_over_spread(found: torch.Tensor, exact: torch.Tensor) -> float:
    """RMS of the difference over the standard deviation of all of `exact`."""
    return float((found - exact).square().mean().sqrt() / exact.std())


def main(words: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbones", help="with commas; default: one a family")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; default: %(default)s")
    asked = parser.parse_args(words)
    device = choose_device(asked.device)
    sys.stdout.write(f"{device_name(device)}, torch {torch.__version__}\n\n")
    sys.stdout.write("| backbone | after block 1 | at the default layer |\n|---|---|---|\n")
    for name in asked.backbones.split(",") if asked.backbones else ONE_A_FAMILY:
        first, *last = off_float32(name, device).items()
        deepest, off = last[-1] if last else first
        sys.stdout.write(f"| {name} | {first[1]:.2%} | {off:.2%} ({deepest.name}) |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
