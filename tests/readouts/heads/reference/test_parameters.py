"""Layouts by hand: what is turned into the reference's comes back unchanged."""

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from readouts.heads.reference.parameters import (
    FlaxParameter,
    attention_parameters,
    conv_parameters,
    parameters_of,
)


def test_a_dense_kernel_of_heads_is_split_by_head() -> None:
    kernel = attention_parameters(heads=2, residual=True, steps=None, external=False)["key_embedding/kernel"]
    ours = torch.arange(12.0).reshape(4, 3)  # two heads of two, from three channels
    theirs = kernel.to_reference(ours)
    assert theirs.shape == (3, 2, 2)
    assert theirs[1, 1, 0] == ours[2, 1]
    assert torch.equal(kernel.from_reference(theirs), ours)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_kernel_comes_back_from_the_references_layout(transposed: bool) -> None:
    kernel = conv_parameters("", "", transposed=transposed)["kernel"]
    ours = torch.arange(54.0).reshape(2, 3, 3, 3)
    theirs = kernel.to_reference(ours)
    assert theirs.shape == ((3, 3, 2, 3) if transposed else (3, 3, 3, 2))
    assert theirs[0, 1].flatten()[0] == (ours[0, 0, 2, 1] if transposed else ours[0, 0, 0, 1])
    assert torch.equal(kernel.from_reference(theirs), ours)


@pytest.mark.parametrize(("steps", "shape"), [(4, (4, 1, 3)), (1, (3,))])
def test_positions_in_time_are_a_flat_vector_where_there_is_one_step(
    steps: int, shape: tuple[int, ...]
) -> None:
    parameters = attention_parameters(heads=2, residual=True, steps=steps, external=False)
    entry, ours = parameters["temporal_posenc/embeddings"], torch.randn(steps, 3)
    theirs = entry.to_reference(ours)
    assert theirs.shape == shape
    assert torch.equal(entry.from_reference(theirs), ours)


def test_arrays_are_copies() -> None:
    ours = torch.zeros(2)
    array = FlaxParameter(name="bias").to_reference(ours)
    array += 1
    assert not ours.any()
    taken = FlaxParameter(name="bias").from_reference(np.zeros(2, dtype=np.float64))
    assert taken.dtype == torch.float32


def test_modules_of_other_kinds_are_refused() -> None:
    with pytest.raises(CallError, match="no readout like Linear"):
        parameters_of(torch.nn.Linear(1, 1))
