"""The machine and its ceilings: software, matrix products, copies, the disk."""

import os
import platform
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch

from featcache.system.device import device_name
from featcache.system.versions import version_of
from readouts.training.arithmetic import training_arithmetic
from tests.benchmarks.gpu_check.check import Check

PACKAGES = (
    "scivid", "torch", "numpy", "transformers", "zarr", "numcodecs", "array-record", "simplejpeg", "fastcrc",
    "pyarrow", "xarray", "av",
)  # fmt: skip
PRODUCTS = (("bfloat16", torch.bfloat16), ("tf32", torch.float32), ("float32", torch.float32))
BLOCK_BYTES = 2**24


def measure(check: Check) -> None:
    """Every ceiling that the other steps are held against."""
    check.note("packages", {name: version_of(name) for name in PACKAGES})
    check.note("device", device_name(check.device))
    check.note("python", platform.python_version())
    check.note("cores", len(os.sched_getaffinity(0)))
    if check.on_gpu:
        found = torch.cuda.get_device_properties(check.device)
        check.note("GPU memory, GB", round(found.total_memory / 1e9, 1))
        check.note("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
    for name, dtype in PRODUCTS:
        with check.guarded(name):
            _product(check, name, dtype)
    with check.guarded("copies"):
        _copies(check)
    with check.guarded("disk"), TemporaryDirectory() as folder:
        _disk(check, Path(folder) / "blocks")


def _product(check: Check, name: str, dtype: torch.dtype) -> None:
    side = 256 if check.small else 8192
    a, b = torch.randn(2, side, side, device=check.device).to(dtype)
    with training_arithmetic(name):
        ms = check.row_ms(lambda: a @ b, n=6)
    check.note(f"matrix product {name}, TFLOP/s", round(2 * side**3 / ms / 1e9, 3))


def _copies(check: Check) -> None:
    n_bytes = 2**20 if check.small else 2**30
    pinned = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=check.on_gpu).random_()
    pageable = torch.empty(n_bytes, dtype=torch.uint8).random_()
    there, other = torch.empty(2, n_bytes, dtype=torch.uint8, device=check.device)
    copies = {
        "device to device, read and written": (2, lambda: other.copy_(there)),
        "pinned to device": (1, lambda: there.copy_(pinned, non_blocking=True)),
        "device to pinned": (1, lambda: pinned.copy_(there, non_blocking=True)),
        "pageable to device": (1, lambda: there.copy_(pageable)),
    }
    for name, (times, copy) in copies.items():
        check.note(f"{name}, GB/s", round(times * n_bytes / check.row_ms(copy, n=3, warm_up=1) / 1e6, 1))


def _disk(check: Check, path: Path) -> None:
    """Written and made durable, then read again past the page cache where the system lets go of it."""
    block, n_blocks = np.random.default_rng(0).bytes(BLOCK_BYTES), 2 if check.small else 128
    started = perf_counter()
    with path.open("wb") as file:
        for _ in range(n_blocks):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    written = n_blocks * BLOCK_BYTES / (perf_counter() - started)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        buffer, started = bytearray(BLOCK_BYTES), perf_counter()
        while file.readinto(buffer):
            pass
    read = n_blocks * BLOCK_BYTES / (perf_counter() - started)
    check.note("disk, written and synced, GB/s", round(written / 1e9, 2))
    check.note("disk, read, GB/s", round(read / 1e9, 2))
    check.note("disk, free GB", round(shutil.disk_usage(path.parent).free / 1e9, 1))
