"""Which device to run on and in which precision, from what a user wrote; and memory on its way to and fro."""

import ctypes
from collections.abc import Sequence
from contextlib import suppress

import torch
from jaxtyping import Shaped
from torch import Tensor

from featcache.errors import CallError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

M_MMAP_THRESHOLD = -3
"""The number of glibc's option (malloc.h)."""
LARGE_BUFFER = 2**20


def return_freed_buffers() -> None:
    """Have glibc give freed buffers of 1 MiB and more back to the system at once.

    Left alone it learns to keep them, and decoded clips of 12 MB between small ones break its arenas to
    pieces: 400 MB in an extraction of weather. Not for training, where fresh pages cost more than they save.
    """
    with suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BUFFER)


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` is a GPU where there is one.

    Raises:
        CallError: torch knows no such device, or has no GPU to offer.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CallError(f"--device {name}: write cpu, cuda, cuda:1 or auto.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise CallError(f"--device {name}: torch sees {seen} GPUs here; leave the option out, or write cpu.")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype a backbone computes in; `auto` is bfloat16 on a GPU and float32 elsewhere.

    Raises:
        CallError: an unknown precision.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in PRECISIONS:
        raise CallError(f"--precision {name}: write {', '.join(PRECISIONS)} or auto.")
    return PRECISIONS[name]


def device_name(device: torch.device) -> str:
    """The device as results tables name it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def host_buffer(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Shaped[Tensor, "..."]:
    """Uninitialised memory of the host that a GPU copies from and to while both go on; plain for a CPU.

    Pinning takes long: keep what this gives.
    """
    if device.type != "cuda":
        return torch.empty(tuple(shape), dtype=dtype)
    # Left alone, torch would make a context on the first GPU, half a GB, whichever is used.
    with torch.cuda.device(device):
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)
