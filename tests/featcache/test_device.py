"""Devices and precisions from words."""

import pytest
import torch

from featcache.device import choose_device, choose_precision, device_name
from featcache.errors import CallError


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
