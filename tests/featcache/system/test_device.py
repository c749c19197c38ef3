"""Devices and precisions from words."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend

from featcache.errors import CallError
from featcache.system.device import (
    attention_kernel,
    choose_attention_kernel,
    choose_device,
    choose_precision,
    device_name,
    free_memory,
    gpu_of_rank,
    host_buffer,
)


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
    with pytest.raises(CallError, match="--attention-kernel fast: write torch, flash, cudnn"):
        choose_attention_kernel("fast")
    with pytest.raises(CallError, match="--precision half: write float32, bfloat16 or auto"):
        choose_precision("half", torch.device("cpu"))


def test_attention_goes_to_the_kernel_that_is_asked_for_and_to_another_where_that_refuses() -> None:
    q, k, v = torch.rand(3, 1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    by_itself, exact = torch._fused_sdp_choice(q, k, v), (q @ k.mT * 8**-0.5).softmax(-1) @ v
    for name in ("torch", "flash", "cudnn", "efficient", "math"):
        with attention_kernel(choose_attention_kernel(name)):
            found = torch._fused_sdp_choice(q, k, v)
            torch.testing.assert_close(F.scaled_dot_product_attention(q, k, v), exact)
        assert (found == SDPBackend.MATH.value) == (name == "math"), name
    assert torch._fused_sdp_choice(q, k, v) == by_itself != SDPBackend.MATH.value


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


def test_what_torch_holds_for_later_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"mem_get_info": (10, 80), "memory_reserved": 60, "memory_allocated": 5}
    for name, value in facts.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_memory(torch.device("cuda")) == 10 + 60 - 5


def test_of_the_host_what_the_page_cache_holds_is_free() -> None:
    pages = os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_memory(torch.device("cpu")) < pages * os.sysconf("SC_PAGE_SIZE")


def test_memory_for_a_cpu_is_plain() -> None:
    buffer = host_buffer((2, 3), torch.int8, torch.device("cpu"))
    assert (buffer.shape, buffer.dtype, buffer.is_pinned()) == ((2, 3), torch.int8, False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_memory_for_a_gpu_is_pinned() -> None:
    assert host_buffer((2, 3), torch.int8, torch.device("cuda")).is_pinned()


@pytest.mark.parametrize(
    ("device", "rank", "n_gpus", "wanted"),
    [
        ("cuda", "3", 8, "cuda:3"),
        ("cuda", "3", 1, "cuda:0"),  # each process sees its own
        ("cuda:1", "3", 8, "cuda:1"),
        ("cuda", None, 8, "cuda"),
        ("cpu", "3", 0, "cpu"),
    ],
)
def test_processes_of_torchrun_take_a_gpu_each(
    monkeypatch: pytest.MonkeyPatch, device: str, rank: str | None, n_gpus: int, wanted: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    environment = {} if rank is None else {"LOCAL_RANK": rank}
    assert gpu_of_rank(torch.device(device), environment) == torch.device(wanted)
