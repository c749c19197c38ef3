"""Products are rounded where that was asked for, in all threads, and nothing else is."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from readouts.tokens.products import product, rounded_products


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def as_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU what other devices do."""
    monkeypatch.setattr("readouts.tokens.products._rounds_inside", lambda device: False)


def test_factors_are_rounded_and_the_result_is_float32(as_elsewhere: None) -> None:
    left, right = draw(3, 4), draw(4, 5, seed=1)
    seen = []

    def of(a: Tensor, b: Tensor) -> Tensor:
        seen.append((a.dtype, b.dtype))
        return a @ b

    exact = product(of, left, right)
    with rounded_products():
        rounded = product(of, left, right)
        with ThreadPoolExecutor(1) as pool:
            elsewhere = pool.submit(product, of, left, right).result()
    assert seen == [(torch.float32,) * 2, (torch.bfloat16,) * 2, (torch.bfloat16,) * 2]
    assert torch.equal(exact, left @ right)
    assert torch.equal(rounded, (left.bfloat16() @ right.bfloat16()).float())
    assert torch.equal(elsewhere, rounded)
    assert torch.equal(product(of, left, right), exact), "outside again"


def test_gradients_are_float32(as_elsewhere: None) -> None:
    left, right = draw(3, 4).requires_grad_(), draw(4, 5, seed=1).requires_grad_()
    with rounded_products():
        product(torch.matmul, left, right).square().sum().backward()
    exact = torch.autograd.grad((left @ right).square().sum(), (left, right))
    for of, expected in zip((left, right), exact, strict=True):
        assert of.grad is not None
        assert of.grad.dtype == torch.float32
        assert 0 < (of.grad - expected).norm() < 0.02 * expected.norm()


def test_a_cpu_is_left_to_round_inside() -> None:
    with rounded_products():
        assert torch.equal(product(torch.matmul, draw(3, 4), draw(4, 5)), draw(3, 4) @ draw(4, 5))
