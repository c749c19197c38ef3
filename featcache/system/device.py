"""Which device to run on, in which precision and by which attention kernel; its memory, and the host's."""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Literal, get_args

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from featcache.errors import CallError
from featcache.system.host_memory import available_host_bytes

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

AttentionKernel = Literal["torch", "flash", "cudnn", "efficient", "math"]
"""Who computes `scaled_dot_product_attention`; `torch` leaves it to torch, by device, dtype and shape."""

_BACKENDS: dict[AttentionKernel, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}

SUSTAINED_TFLOPS = 200.0
"""10^12 operations a second that plans assume: a fifth of what an H100's data sheet gives for bfloat16."""

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


def gpu_of_rank(device: torch.device, environment: Mapping[str, str]) -> torch.device:
    """One GPU for each process that torchrun began on this machine, where all of them see all GPUs.

    A device that says which GPU it is stays as it is, and so does one outside of torchrun.
    """
    rank = environment.get("LOCAL_RANK", "")
    if str(device) != "cuda" or not rank.isdecimal():
        return device
    return torch.device("cuda", int(rank) % torch.cuda.device_count())


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


@contextmanager
def attention_kernel(name: AttentionKernel) -> Iterator[None]:
    """Attention by this kernel first, by the others where it refuses a shape or a dtype (flash: float32).

    Kernels differ in last bits. On a CPU torch has flash and math only.
    """
    if name == "torch":
        yield
        return
    # Math takes everything, and a CPU looks at what is allowed, not at the order.
    others = () if name == "math" else (backend for other, backend in _BACKENDS.items() if other != name)
    with sdpa_kernel([_BACKENDS[name], *others], set_priority=True):
        yield


def choose_attention_kernel(name: str) -> AttentionKernel:
    """The attention kernel called `name`.

    Raises:
        CallError: there is none.
    """
    known: dict[str, AttentionKernel] = {one: one for one in get_args(AttentionKernel)}
    if name not in known:
        raise CallError(f"--attention-kernel {name}: write {', '.join(known)}.")
    return known[name]


def device_name(device: torch.device) -> str:
    """The device as results tables name it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device; of the host, what the page cache can give up is among them."""
    if device.type == "cuda":
        # What torch holds for later is free to us: after a sweep's first pass that is nearly everything.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    return available_host_bytes()


def host_buffer(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Shaped[Tensor, "..."]:
    """Uninitialised memory of the host that a GPU copies from and to while both go on; plain for a CPU.

    Pinning takes long: keep what this gives.
    """
    if device.type != "cuda":
        return torch.empty(tuple(shape), dtype=dtype)
    # Left alone, torch would make a context on the first GPU, half a GB, whichever is used.
    with torch.cuda.device(device):
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)
