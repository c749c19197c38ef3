"""Rows of many parties in one product: each party has the bits that it has alone."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from readouts.tokens import row_products as module
from readouts.tokens.row_products import ROWS_AT_ONCE, filled_up, row_products


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def tried_anew() -> Iterator[None]:
    module._agree.cache_clear()
    yield
    module._agree.cache_clear()


@pytest.mark.parametrize(("n_inner", "n_columns"), [(768, 1568), (1568, 768), (12, 40), (33, 7), (17, 3)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_party_has_the_bits_that_it_has_alone(n_inner: int, n_columns: int, turned: bool) -> None:
    sizes = [16, 4, 8, 3, 1]
    rows, matrix = draw(2, sum(sizes), n_inner), draw(2, n_inner, n_columns, seed=1)
    if turned:
        matrix = matrix.mT.contiguous().mT
    together = row_products(rows, matrix, sizes)
    torch.testing.assert_close(together.double(), rows.double() @ matrix.double(), rtol=0, atol=5e-4)
    parts = zip(torch.split(rows, sizes, dim=1), torch.split(together, sizes, dim=1), strict=True)
    for own, found in parts:
        assert torch.equal(row_products(own, matrix, [own.shape[1]]), found)


def test_what_sums_otherwise_for_many_rows_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    plain = torch.bmm

    def other_order_for_many(rows: Tensor, matrix: Tensor) -> Tensor:
        taken.append(rows.shape[1])
        return plain(rows, matrix) if rows.shape[1] < 9 else plain(rows.flip(2), matrix.flip(1))

    monkeypatch.setattr(torch, "bmm", other_order_for_many)
    rows, matrix = draw(1, 12, 99), draw(1, 99, 50, seed=1)
    row_products(rows, matrix, [8, 4])
    assert taken == [12, 8, 4, 8, 4], "tried, and then taken"
    taken.clear()
    found = row_products(rows, matrix, [8, 4])
    assert taken == [8, 4], "and not tried again"
    assert torch.equal(found[:, :8], plain(rows[:, :8], matrix))


def test_what_agrees_is_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    exact = torch.bmm

    def in_double(rows: Tensor, matrix: Tensor) -> Tensor:
        taken.append(rows.shape[1])
        return exact(rows.double(), matrix.double()).float()

    monkeypatch.setattr(torch, "bmm", in_double)
    rows, matrix = draw(1, 12, 9), draw(1, 9, 50, seed=1)
    row_products(rows, matrix, [8, 4])
    taken.clear()
    row_products(rows, matrix, [8, 4])
    assert taken == [12]


def test_rows_are_filled_up() -> None:
    assert filled_up(draw(ROWS_AT_ONCE, 3)).shape == (ROWS_AT_ONCE, 3)
    filled = filled_up(torch.ones(ROWS_AT_ONCE + 1, 2, 3))
    assert filled.shape == (2 * ROWS_AT_ONCE, 2, 3)
    assert filled.sum() == (ROWS_AT_ONCE + 1) * 6


def test_what_is_tried_takes_nothing_from_the_random_numbers_of_others() -> None:
    state = torch.random.get_rng_state()
    row_products(draw(1, 8, 9), draw(1, 9, 9), [4, 4])
    assert torch.equal(torch.random.get_rng_state(), state)
