"""Devices and precisions from words."""

import subprocess
import sys

import pytest
import torch

from featcache.errors import CallError
from featcache.system.device import choose_device, choose_precision, device_name, host_buffer


def test_the_cpu_computes_in_float32_and_a_gpu_in_bfloat16() -> None:
    assert choose_device("cpu").type == "cpu"
    assert device_name(torch.device("cpu")) == "cpu"
    assert choose_precision("auto", torch.device("cpu")) == torch.float32
    assert choose_precision("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_precision("bfloat16", torch.device("cpu")) == torch.bfloat16


def test_wrong_words_are_named() -> None:
    with pytest.raises(CallError, match="--device tpu9"):
        choose_device("tpu9")
    with pytest.raises(CallError, match=f"torch sees {torch.cuda.device_count()} GPUs"):
        choose_device("cuda:63")
    with pytest.raises(CallError, match="--precision half: write float32, bfloat16 or auto"):
        choose_precision("half", torch.device("cpu"))


def test_freed_buffers_go_back_to_the_system() -> None:
    """In a process of its own: the option stays. Blocks of 12 MB freed between small ones that are kept."""
    code = """
import numpy as np
from featcache.system.device import return_freed_buffers
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * 4096
return_freed_buffers()
before, kept, large = resident(), [], []
for _ in range(20):
    large.append(np.ones(3 * 2**19)); kept.append(np.ones(2**13))
large.clear()
assert resident() - before < 40e6, resident() - before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memory_for_a_cpu_is_plain() -> None:
    buffer = host_buffer((2, 3), torch.int8, torch.device("cpu"))
    assert (buffer.shape, buffer.dtype, buffer.is_pinned()) == ((2, 3), torch.int8, False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_memory_for_a_gpu_is_pinned() -> None:
    assert host_buffer((2, 3), torch.int8, torch.device("cuda")).is_pinned()
