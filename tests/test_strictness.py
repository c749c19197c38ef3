"""What makes all other tests strict is on in each process that runs them: pytest-xdist starts its own."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from featcache.fingerprint import fingerprint
from featcache.resampling import resize_bilinear
from featcache.spec import TokenGrid
from readouts.metrics.area import latitude_weights
from tests.checked_calls import checked as check


def test_shapes_in_signatures_are_checked() -> None:
    with pytest.raises(TypeCheckError, match="resize_bilinear"):
        resize_bilinear(torch.zeros(2, 3), 4, 4)
    with pytest.raises(TypeCheckError, match="latitude_weights"):
        latitude_weights("3")  # type: ignore[arg-type]


def test_types_are_checked_where_there_is_no_array() -> None:
    with pytest.raises(TypeCheckError, match="fingerprint"):
        fingerprint("parts")  # type: ignore[arg-type]
    with pytest.raises(TypeCheckError, match="steps"):
        TokenGrid(steps="2", rows=1, columns=1, channels=1)  # type: ignore[arg-type]


@check
def doubled(a: Float[Tensor, "B C"], b: Float[Tensor, "B D"], n: int = 2) -> Float[Tensor, "C D"]:
    return torch.zeros(a.shape[1] * n // 2, b.shape[1])


@check
def outer(a: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    """Of other sizes than the call within."""
    doubled(torch.zeros(7, 5), torch.zeros(7, 6))
    return a


@check
def reshaped(a: Float[Tensor, " B"], rows: int) -> Float[Tensor, "{rows} C"]:
    return a.reshape(2, -1)


@check
def told(n: "int") -> "str":
    return str(n) if n else n  # type: ignore[return-value]


@check
def rows(a: Float[Tensor, "B C"], b: Float[Tensor, " B"]) -> Iterator[Float[Tensor, " C"]]:
    yield from a[: len(b)]


@check
def listed(a: list[Float[Tensor, "B C"]], b: Float[Tensor, " B"] | None = None) -> int:
    return len(a) if b is None else "none"  # type: ignore[return-value]


@check
@dataclass(frozen=True)
class Pair:
    a: Float[Tensor, " B"]
    b: Float[Tensor, " B"]


@check
class Method:
    @property
    @check
    def size(self) -> int:
        return "1"  # type: ignore[return-value]

    @classmethod
    @check
    def of(cls, n: int) -> int:
        return n


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


def test_what_fits_is_let_through() -> None:
    assert doubled(zeros(1, 2), zeros(1, 3)).shape == (2, 3)
    assert outer(zeros(2, 3)).shape == (2, 3)
    assert reshaped(zeros(4), 2).shape == (2, 2)
    assert told(3) == "3" and listed([zeros(2, 3)]) == 1 and Method.of(3) == 3
    assert len(list(rows(zeros(2, 3), zeros(2)))) == 2
    assert Pair(zeros(2), b=zeros(2)).a.shape == (2,)


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (doubled, (zeros(1, 2), zeros(2, 3))),
        (doubled, (zeros(1, 2), zeros(1, 3), "2")),
        (doubled, (zeros(1, 2), zeros(1, 3), 4)),
        (doubled, (zeros(1, 2).long(), zeros(1, 3))),
        (reshaped, (zeros(4), 3)),
        (told, ("3",)),
        (told, (0,)),
        (rows, (zeros(2, 3), zeros(3))),
        (listed, ([zeros(2)],)),
        (listed, ([zeros(2, 3)], zeros(3))),
        (listed, ([zeros(2, 3)], zeros(2))),
        (Pair, (zeros(2), zeros(3))),
        (Method.of, ("3",)),
        (lambda: Method().size, ()),
    ],
)
def test_what_does_not_fit_is_told(call: Any, given: tuple[Any, ...]) -> None:
    with pytest.raises(TypeCheckError):
        call(*given)


def test_a_warning_is_an_error() -> None:
    with pytest.raises(UserWarning, match="noticed"):
        warnings.warn("noticed", stacklevel=1)
