"""How exact products are in training, and that they are the same each time they are repeated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch


@contextmanager
def training_arithmetic() -> Iterator[None]:
    """Make products and convolutions exact to float32 and repeatable, whatever the process asked for.

    By default a GPU rounds the inputs of convolutions to ten bits, and takes algorithms that add by atomics.
    """
    cudnn, cuda, cpu = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
    # torch knows each of these by an old and a new name, and refuses to compute where they contradict.
    wanted: list[tuple[Any, str, Any]] = [
        (cudnn, "deterministic", True),
        (cudnn, "benchmark", False),
        (cudnn, "allow_tf32", False),
    ]
    kinds: list[Any] = [cudnn, cudnn, cuda, cpu, cpu]
    for backend, kind in zip(kinds, ("conv", "rnn", "matmul", "matmul", "conv"), strict=True):
        wanted.append((getattr(backend, kind), "fp32_precision", "ieee"))
    before = [(of, name, _known(partial(getattr, of, name))) for of, name, _ in wanted]
    matmul = _known(torch.get_float32_matmul_precision)
    try:
        torch.set_float32_matmul_precision("highest")
        for of, name, value in wanted:
            setattr(of, name, value)
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
