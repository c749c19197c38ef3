"""Pixels to a model's input, alike for every family: frames counted, resized by exact overlap, normalised."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from featcache.backbones.base import BackboneInfo
from featcache.errors import CallError
from featcache.resampling import per_channel, resize_area


def model_input(
    pixels: Float[Tensor, "B F rgb Y X"], info: BackboneInfo, device: torch.device
) -> Float[Tensor, "B F rgb y x"]:
    """Float32 frames on `device`, `info.input_size` large, mean and std applied.

    Raises:
        CallError: not `info.n_frames` RGB frames.
    """
    n_clips, n_frames, n_channels = pixels.shape[:3]
    if (n_frames, n_channels) != (info.n_frames, 3):
        raise CallError(
            f"{info.name} takes clips of {info.n_frames} RGB frames, not {n_frames} frames of {n_channels} "
            "channels: repeat frames or channels first."
        )
    frames = rearrange(pixels.to(device, torch.float32), "b f c y x -> (b f) c y x")
    frames = _normalise(resize_area(frames, *info.input_size), info)
    return rearrange(frames, "(b f) c y x -> b f c y x", b=n_clips)


def _normalise(frames: Float[Tensor, "F rgb Y X"], info: BackboneInfo) -> Float[Tensor, "F rgb Y X"]:
    if info.mean is None or info.std is None:
        return frames
    mean, std = (per_channel(values, frames.device) for values in (info.mean, info.std))
    return (frames - mean) / std
