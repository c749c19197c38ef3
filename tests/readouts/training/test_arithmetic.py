"""Training's arithmetic is exact whatever the process asked for by whichever name, and that comes back."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from readouts.training.arithmetic import training_arithmetic


def settings() -> dict[str, object]:
    cudnn, cuda, cpu = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
    precise = {
        "conv": cudnn.conv,
        "rnn": cudnn.rnn,
        "gpu": cuda.matmul,
        "cpu": cpu.matmul,
        "cpu conv": cpu.conv,
    }
    found: dict[str, object] = {name: of.fp32_precision for name, of in precise.items()}
    return found | {"deterministic": cudnn.deterministic, "benchmark": cudnn.benchmark}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = settings()
    yield
    assert settings() == before


@pytest.mark.parametrize(
    ("precision", "gpu", "cpu"), [("tf32", "tf32", "tf32"), ("bfloat16", "tf32", "bf16")]
)
def test_a_coarser_precision_is_asked_for(precision: str, gpu: str, cpu: str) -> None:
    with training_arithmetic(precision):
        inside = settings()
        assert torch.backends.cudnn.allow_tf32 is True, "and torch does not complain of two names"
        torch.get_float32_matmul_precision()
    assert list(inside.values())[:5] == [gpu] * 3 + [cpu] * 2


def test_inside_all_is_exact_and_repeatable() -> None:
    with training_arithmetic():
        inside = settings()
        assert torch.backends.cudnn.allow_tf32 is False, "and torch does not complain of two names"
        assert torch.get_float32_matmul_precision() == "highest"
    assert inside.pop("deterministic") is True
    assert inside.pop("benchmark") is False
    assert set(inside.values()) == {"ieee"}


def test_a_torch_of_before_the_new_names_is_told_by_the_old_ones() -> None:
    """In a process of its own: what lacks its new name here keeps what it was told by the old one."""
    code = (
        "import torch, types\nfrom readouts.training.arithmetic import training_arithmetic\n"
        "torch.backends.mkldnn = types.SimpleNamespace()\n"
        "with training_arithmetic('tf32'):\n"
        "    assert torch.get_float32_matmul_precision() == 'high'\n"
        "    assert torch.backends.cudnn.conv.fp32_precision == 'tf32'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "asked",
    [
        "torch.backends.fp32_precision = 'tf32'",
        "torch.set_float32_matmul_precision('medium')",
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.backends.cudnn.conv.fp32_precision = 'tf32'",
    ],
)
def test_what_the_process_asked_for_is_overruled_and_comes_back(asked: str) -> None:
    """In a process of its own: torch keeps some of it for good."""
    code = (
        f"import torch\nfrom tests.readouts.training.test_arithmetic import *\n{asked}\nbefore = settings()\n"
        "test_inside_all_is_exact_and_repeatable()\nassert settings() == before, (before, settings())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
