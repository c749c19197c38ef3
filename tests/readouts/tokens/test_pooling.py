"""One pass for many queries: autograd's own results and gradients, whatever other queries there are."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from featcache.resampling import temporal_matrix
from readouts.tokens.implicit import TemporalResize
from readouts.tokens.pooling import Pooled, PoolingQuery, attend, pool, pool_projected, turns
from readouts.tokens.prepared import PreparedTokens, prepared

B, T, N, C = 3, 4, 5, 12
CASES = pytest.mark.parametrize(("method", "steps"), [(None, T), ("linear", 8), ("cubic", 8), ("linear", 3)])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(method: str | None, steps: int, dtype: torch.dtype = torch.float16) -> PreparedTokens:
    exact = torch.promote_types(dtype, torch.float32)
    resize = None if method is None else TemporalResize.by(temporal_matrix(T, steps, method).to(exact))
    return PreparedTokens((0.5 + draw(B, T, N, C)).half().to(dtype), resize)


def make_query(steps: int, n_keys: int, seed: int) -> PoolingQuery:
    keys, offset = draw(n_keys, C, seed=seed).float(), draw(n_keys, steps, seed=seed + 1).float()
    return PoolingQuery(keys=keys.requires_grad_(), offset=offset.requires_grad_())


def doubled(query: PoolingQuery) -> PoolingQuery:
    keys, offset = (part.detach().double().requires_grad_() for part in (query.keys, query.offset))
    return PoolingQuery(keys=keys, offset=offset)


def pull(found: list[Pooled]) -> None:
    """A backward pass from all that was pooled, each with gradients of its own."""
    parts = [part for pooled in found for part in (pooled.tokens, pooled.mass)]
    given = [draw(*part.shape, seed=part.shape[1]).to(part.dtype) for part in parts]
    torch.autograd.backward(parts, given)


@CASES
def test_pooled_tokens_and_gradients_are_those_of_autograd_in_double(method: str | None, steps: int) -> None:
    queries = [make_query(steps, 2, 1), make_query(steps, 3, 5), make_query(steps, 1, 9)]
    in_double = [doubled(query) for query in queries]
    found, expected = (
        pool(batch(method, steps), queries),
        pool(batch(method, steps, torch.float64), in_double),
    )
    pull(found)
    pull(expected)
    for one, other, query, double in zip(found, expected, queries, in_double, strict=True):
        for single, exact in (
            (one.tokens, other.tokens),
            (one.mass, other.mass),
            (query.keys.grad, double.keys.grad),
            (query.offset.grad, double.offset.grad),
        ):
            assert single is not None and exact is not None
            torch.testing.assert_close(single.double(), exact, rtol=0, atol=2e-6 * exact.abs().max().item())


@CASES
def test_other_queries_change_no_more_than_rounding(method: str | None, steps: int) -> None:
    sizes = [2, 16, 1, 3]
    together = [make_query(steps, n, i) for i, n in enumerate(sizes)]
    alone = [make_query(steps, n, i) for i, n in enumerate(sizes)]
    beside_others = pool(batch(method, steps), together)
    pull(beside_others)
    for i, query in enumerate(alone):
        (by_itself,) = pool(batch(method, steps), [query])
        pull([by_itself])
        pairs = [
            (by_itself.tokens, beside_others[i].tokens),
            (by_itself.mass, beside_others[i].mass),
            (query.keys.grad, together[i].keys.grad),
        ]
        for own, found in pairs:
            assert own is not None and found is not None
            torch.testing.assert_close(own, found, rtol=0, atol=1e-6 * own.abs().max().item())


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_pooled_tokens_are_the_same_bits_from_any_number_of_threads(request: pytest.FixtureRequest) -> None:
    one, three = make_query(8, 4, 0), make_query(8, 4, 0)
    (alone,) = pool(batch("linear", 8), [one])
    pull([alone])
    request.getfixturevalue("three_threads")
    (threaded,) = pool(batch("linear", 8), [three])
    pull([threaded])
    assert torch.equal(alone.tokens, threaded.tokens)
    assert one.keys.grad is not None and three.keys.grad is not None
    assert torch.equal(one.keys.grad, three.keys.grad)


def test_by_hand() -> None:
    # Tokens (1, -1) and (-1, 1) are their own standards; keys (x, 0) score x and -x.
    tokens = prepared(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).reshape(1, 1, 2, 2))
    keys = torch.tensor([[0.5 * torch.log(torch.tensor(3.0)), 0.0]])
    (pooled,) = pool(tokens, [PoolingQuery(keys=keys, offset=torch.full((1, 1), 7.0))])
    # A softmax of 3/4 and 1/4.
    torch.testing.assert_close(pooled.tokens, torch.tensor([[[0.5, -0.5]]]), rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled.mass, torch.ones(1, 1, 1))


def test_no_query_pools_nothing() -> None:
    assert pool(batch(None, T), []) == []


def test_an_evaluation_keeps_no_weights() -> None:
    query = make_query(8, 4, 0)
    (trained,) = pool(batch("linear", 8), [query])
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            (evaluated,) = pool(batch("linear", 8), [query])
        assert not evaluated.tokens.requires_grad
        assert torch.equal(evaluated.tokens, trained.tokens.detach())


def test_attend_is_attention_over_written_tokens() -> None:
    tokens, query = batch("cubic", 8, torch.float64), doubled(make_query(8, 4, 0))
    written = tokens.standardised.written()
    scores = torch.einsum("kc,bunc->bkun", query.keys, written) + query.offset[:, :, None]
    weights = scores.flatten(2).softmax(-1).unflatten(2, (8, N))
    pooled, mass = attend(tokens.standardised, query.keys, query.offset)
    torch.testing.assert_close(pooled, torch.einsum("bkun,bunc->bkc", weights, written))
    torch.testing.assert_close(mass, weights.sum(-1))


def test_queries_of_each_clip_find_what_softmax_gives(device: torch.device) -> None:
    query, keys, values = (draw(2, 3, n, 5, seed=n).float().to(device).requires_grad_() for n in (4, 7, 7))
    found = pool_projected(query, keys, values)
    weights = (query.double() @ keys.double().mT).softmax(dim=-1)
    expected = weights @ values.double()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    slope = draw(2, 3, 4, 5, seed=9).to(device)
    ours = torch.autograd.grad(found, (query, keys, values), slope.float())
    theirs = torch.autograd.grad(expected, (query, keys, values), slope)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_many_readouts_find_what_each_finds() -> None:
    query, keys = (draw(4, 2, 3, n, 5, seed=n).requires_grad_() for n in (4, 7))
    found = torch.vmap(pool_projected, in_dims=(0, 0, 0))(query, keys, keys + 1.0)
    expected = torch.stack([pool_projected(q, k, k + 1.0) for q, k in zip(query, keys, strict=True)])
    torch.testing.assert_close(found, expected)
    slope = draw(*found.shape, seed=9)
    for one, other in zip(
        *(torch.autograd.grad(of, (query, keys), slope) for of in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other)
    moved = torch.vmap(pool_projected, in_dims=(1, 0, 0))(query.movedim(0, 1), keys, keys + 1.0)
    assert torch.equal(moved, found), "whichever axis counts them"


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("n_tokens", [7, 2**24])
def test_every_clip_and_head_has_its_turn_once(one_by_one: bool, n_tokens: int) -> None:
    seen = torch.zeros(5, 3)
    for clips, heads in turns((5, 3, 4, 8), n_tokens, one_by_one=one_by_one):
        seen[clips, heads] += 1
    assert (seen == 1).all()


def test_a_pass_on_a_device_is_the_one_on_a_cpu(device: torch.device) -> None:
    """Forward and backward, by clips there and here."""
    found = []
    for where in (torch.device("cpu"), device):
        query = make_query(8, 3, 1)
        keys, offset = (part.detach().to(where).requires_grad_() for part in (query.keys, query.offset))
        tokens = batch("linear", 8)
        assert isinstance(tokens.native, Tensor) and tokens.matrix is not None
        resize = TemporalResize.by(tokens.matrix.cpu())
        moved = TemporalResize(
            matrix=resize.matrix.to(where), lags=tuple(lag.to(where) for lag in resize.lags)
        )
        asked = PoolingQuery(keys=keys, offset=offset)
        (pooled,) = pool(PreparedTokens(tokens.native.to(where), moved), [asked])
        (pooled.tokens.sum() + pooled.mass.square().sum()).backward()
        found.append([pooled.tokens.detach().cpu(), keys.grad.cpu(), offset.grad.cpu()])  # type: ignore[union-attr]
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)
