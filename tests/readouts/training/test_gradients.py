"""Gradients of many heads on one batch: autograd's own, whatever other heads there are."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from readouts.heads import AttentionReadout, LinearReadout, Readout, TrackingReadout
from readouts.heads.layers import Dropout
from readouts.tokens.prepared import PreparedTokens, TokenPreparation
from readouts.training.gradients import backward

B, T, N, C = 5, 2, 30, 24
THREADS = pytest.mark.parametrize("threads", [1, 2, 5], indirect=True)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_heads() -> dict[str, Readout]:
    sizes = {"wide": (64, 16, 0.5), "narrow": (4, 1, 0.0), "middling": (24, 3, 0.1), "many": (32, 2, 0.0)}
    heads: dict[str, Readout] = {
        name: AttentionReadout(
            channels=C, steps=2 * T, n_outputs=3, width=width, heads=heads, dropout=dropout,
            n_queries=3 if name == "many" else 1, generator=seeded(width),
        )
        for name, (width, heads, dropout) in sizes.items()
    }  # fmt: skip
    for name, head in heads.items():
        head.draw_dropout_from(seeded(len(name)))
    return heads | {"linear": LinearReadout(channels=C, n_outputs=3, generator=seeded(9))}


def tokens() -> PreparedTokens:
    native = torch.randn(B, T, N, C, generator=seeded(0)).half()
    return TokenPreparation(steps_in=T, steps_out=2 * T, method="linear")(native)


def loss_of(name: str, outputs: Tensor) -> Tensor:
    return (outputs - len(name)).square().mean()


def gradients(head: Readout) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in head.named_parameters()}
    assert all(grad is not None for grad in found.values())
    return {name: grad for name, grad in found.items() if grad is not None}


def check_gradients(head: Readout, expected: Readout) -> None:
    """Equal up to the rounding of a head's largest gradient."""
    exact = gradients(expected)
    largest = max(grad.abs().max().item() for grad in exact.values())
    for name, grad in gradients(head).items():
        torch.testing.assert_close(grad, exact[name], rtol=0, atol=1e-6 * largest, msg=name)


@THREADS
def test_other_heads_change_no_more_than_rounding(threads: int) -> None:
    together, apart = draw_heads(), draw_heads()
    losses = backward(together, tokens(), {}, loss_of)
    for name, head in apart.items():
        (alone,) = backward({name: head}, tokens(), {}, loss_of).values()
        torch.testing.assert_close(alone, losses[name], rtol=1e-6, atol=0)
        check_gradients(together[name], head)


@THREADS
def test_gradients_are_those_of_a_plain_backward_pass(threads: int) -> None:
    found, plain = draw_heads(), draw_heads()
    losses = backward(found, tokens(), {}, loss_of)
    for name, head in plain.items():
        loss = loss_of(name, head(tokens()))
        loss.backward()
        torch.testing.assert_close(losses[name], loss.detach(), rtol=1e-6, atol=0)
        check_gradients(found[name], head)


def test_losses_are_in_the_order_of_the_heads() -> None:
    heads = draw_heads()
    mixed = {"linear": heads["linear"], **heads}
    assert list(backward(mixed, tokens(), {}, loss_of)) == list(mixed)


def test_tokens_that_learn_have_gradients_from_all_heads() -> None:
    heads = {name: head.eval() for name, head in draw_heads().items()}
    first, second = (torch.randn(B, 2 * T, N, C, generator=seeded(0)).requires_grad_() for _ in range(2))
    backward(heads, PreparedTokens(first), {}, loss_of)
    torch.stack([loss_of(name, head(second)) for name, head in heads.items()]).sum().backward()
    assert first.grad is not None and second.grad is not None
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-6)


def test_heads_that_read_the_tokens_themselves_have_their_inputs() -> None:
    head = TrackingReadout(channels=C, steps=2 * T, n_frames=4, temporal_tiles=2, width=16, heads=2)
    queries = torch.rand(B, 3, 2, generator=seeded(1))
    backward({"tracking": head}, tokens(), {"queries": queries}, loss_of)
    assert gradients(head)


def test_an_error_of_one_head_is_raised() -> None:
    def fails(name: str, outputs: Tensor) -> Tensor:
        raise ValueError(f"{name} cannot be judged")

    with pytest.raises(ValueError, match="cannot be judged"):
        backward(draw_heads(), tokens(), {}, fails)


def test_dropout_is_drawn_from_the_generator_of_each_head() -> None:
    heads, state = draw_heads(), torch.random.get_rng_state()
    first = backward(heads, tokens(), {}, loss_of)
    again = backward(draw_heads(), tokens(), {}, loss_of)
    goes_on = backward(heads, tokens(), {}, loss_of)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first["wide"], again["wide"])
    assert not torch.equal(first["wide"], goes_on["wide"])
    assert isinstance(heads["wide"].trunk.dropout, Dropout)
