"""One pass for many questions: autograd's own answers and gradients, to the bit the same in any company."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from featcache.resampling import temporal_matrix
from readouts.tokens.pooling import Answer, Ask, attend, pool
from readouts.tokens.prepared import PreparedTokens, prepared

B, T, N, C = 3, 4, 5, 12
CASES = pytest.mark.parametrize(("method", "steps"), [(None, T), ("linear", 8), ("cubic", 8), ("linear", 3)])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(method: str | None, steps: int, dtype: torch.dtype = torch.float16) -> PreparedTokens:
    matrix = None if method is None else temporal_matrix(T, steps, method)
    return prepared((0.5 + draw(B, T, N, C)).half().to(dtype), matrix)


def make_ask(steps: int, n_keys: int, seed: int, *, standardised: bool = True) -> Ask:
    keys, offset = draw(n_keys, C, seed=seed).float(), draw(n_keys, steps, seed=seed + 1).float()
    return Ask(keys=keys.requires_grad_(), offset=offset.requires_grad_(), standardised=standardised)


def doubled(ask: Ask) -> Ask:
    leaves = [part.detach().double().requires_grad_() for part in (ask.keys, ask.offset)]
    return Ask(keys=leaves[0], offset=leaves[1], standardised=ask.standardised)


def pull(answers: list[Answer]) -> None:
    """A backward pass from all of the answers, each with gradients of its own."""
    parts = [part for answer in answers for part in (answer.pooled, answer.mass)]
    given = [draw(*part.shape, seed=part.shape[1]).to(part.dtype) for part in parts]
    torch.autograd.backward(parts, given)


@CASES
def test_answers_and_gradients_are_those_of_autograd_in_double(method: str | None, steps: int) -> None:
    asks = [make_ask(steps, 2, 1), make_ask(steps, 3, 5), make_ask(steps, 1, 9, standardised=False)]
    in_double = [doubled(ask) for ask in asks]
    found, expected = pool(batch(method, steps), asks), pool(batch(method, steps, torch.float64), in_double)
    pull(found)
    pull(expected)
    for one, other, ask, double in zip(found, expected, asks, in_double, strict=True):
        for single, exact in (
            (one.pooled, other.pooled),
            (one.mass, other.mass),
            (ask.keys.grad, double.keys.grad),
            (ask.offset.grad, double.offset.grad),
        ):
            assert single is not None and exact is not None
            torch.testing.assert_close(single.double(), exact, rtol=0, atol=2e-6 * exact.abs().max().item())


@CASES
def test_an_answer_is_the_same_bits_in_any_company(method: str | None, steps: int) -> None:
    sizes = [2, 16, 1, 3]
    together = [make_ask(steps, n, i) for i, n in enumerate(sizes)]
    alone = [make_ask(steps, n, i) for i, n in enumerate(sizes)]
    in_company = pool(batch(method, steps), together)
    pull(in_company)
    for i, ask in enumerate(alone):
        (by_itself,) = pool(batch(method, steps), [ask])
        pull([by_itself])
        assert torch.equal(by_itself.pooled, in_company[i].pooled)
        assert torch.equal(by_itself.mass, in_company[i].mass)
        assert ask.keys.grad is not None and together[i].keys.grad is not None
        assert torch.equal(ask.keys.grad, together[i].keys.grad)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_an_answer_is_the_same_bits_from_any_number_of_threads(request: pytest.FixtureRequest) -> None:
    one, three = make_ask(8, 4, 0), make_ask(8, 4, 0)
    (alone,) = pool(batch("linear", 8), [one])
    pull([alone])
    request.getfixturevalue("three_threads")
    (threaded,) = pool(batch("linear", 8), [three])
    pull([threaded])
    assert torch.equal(alone.pooled, threaded.pooled)
    assert one.keys.grad is not None and three.keys.grad is not None
    assert torch.equal(one.keys.grad, three.keys.grad)


def test_by_hand() -> None:
    # Tokens (1, -1) and (-1, 1) are their own standards; keys (x, 0) score x and -x.
    tokens = prepared(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).reshape(1, 1, 2, 2))
    keys = torch.tensor([[0.5 * torch.log(torch.tensor(3.0)), 0.0]])
    (answer,) = pool(tokens, [Ask(keys=keys, offset=torch.full((1, 1), 7.0))])
    # A softmax of 3/4 and 1/4.
    torch.testing.assert_close(answer.pooled, torch.tensor([[[0.5, -0.5]]]), rtol=0, atol=1e-5)
    torch.testing.assert_close(answer.mass, torch.ones(1, 1, 1))


def test_nothing_is_asked() -> None:
    assert pool(batch(None, T), []) == []


def test_an_evaluation_keeps_no_weights() -> None:
    ask = make_ask(8, 4, 0)
    (trained,) = pool(batch("linear", 8), [ask])
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            (evaluated,) = pool(batch("linear", 8), [ask])
        assert not evaluated.pooled.requires_grad
        assert torch.equal(evaluated.pooled, trained.pooled.detach())


def test_attend_is_attention_over_written_tokens() -> None:
    tokens, ask = batch("cubic", 8, torch.float64), doubled(make_ask(8, 4, 0))
    written = tokens.standardised.written()
    scores = torch.einsum("kc,bunc->bkun", ask.keys, written) + ask.offset[:, :, None]
    weights = scores.flatten(2).softmax(-1).unflatten(2, (8, N))
    answer = attend(tokens.standardised, ask)
    torch.testing.assert_close(answer.pooled, torch.einsum("bkun,bunc->bkc", weights, written))
    torch.testing.assert_close(answer.mass, weights.sum(-1))
