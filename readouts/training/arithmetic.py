"""How exact products are in training, and that they are the same each time they are repeated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from readouts.tokens.products import rounded_products


@dataclass(frozen=True, kw_only=True, slots=True)
class _Settings:
    """What torch calls a precision, by the kind of product."""

    matmul: str
    gpu: str
    cpu: str


_SETTINGS = {
    "float32": _Settings(matmul="highest", gpu="ieee", cpu="ieee"),
    "tf32": _Settings(matmul="high", gpu="tf32", cpu="tf32"),
    "bfloat16": _Settings(matmul="medium", gpu="tf32", cpu="bf16"),
}


@contextmanager
def training_arithmetic(precision: str = "float32") -> Iterator[None]:
    """Make products and convolutions repeatable, and of a precision, whatever the process asked for.

    By default a GPU rounds the inputs of convolutions to ten bits, and takes algorithms that add by atomics.

    Args:
        precision: of `readouts.tasks.base.PRECISIONS`. Where a device does not know it, products are float32.
    """
    cudnn, cuda, cpu = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
    asked = _SETTINGS[precision]
    # torch knows each of these by an old and a new name, and refuses to compute where they contradict.
    wanted: list[tuple[Any, str, Any]] = [
        (cudnn, "deterministic", True),
        (cudnn, "benchmark", False),
        (cudnn, "allow_tf32", asked.gpu == "tf32"),
    ]
    by_new_name: list[tuple[Any, str, str]] = [
        (cudnn, "conv", asked.gpu), (cudnn, "rnn", asked.gpu), (cuda, "matmul", asked.gpu),
        (cpu, "matmul", asked.cpu), (cpu, "conv", asked.cpu),
    ]  # fmt: skip
    for backend, kind, value in by_new_name:
        # Before torch 2.9 there are the old names alone, and what the new ones say is its default.
        if hasattr(of := getattr(backend, kind, None), "fp32_precision"):
            wanted.append((of, "fp32_precision", value))
    before = [(of, name, _known(partial(getattr, of, name))) for of, name, _ in wanted]
    matmul = _known(torch.get_float32_matmul_precision)
    try:
        torch.set_float32_matmul_precision(asked.matmul)
        for of, name, value in wanted:
            setattr(of, name, value)
        with rounded_products() if precision == "bfloat16" else nullcontext():
            yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        for of, name, value in before:
            if value is not None:
                setattr(of, name, value)


def _known(read: Callable[[], Any]) -> Any:
    """A setting; None where torch does not tell it by its old name, as the process has used the new one."""
    try:
        return read()
    except RuntimeError:
        return None
