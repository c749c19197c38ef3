"""Layouts by hand: what a place gives the reference, it takes back."""

import numpy as np
import pytest
import torch

from featcache.errors import CallError
from readouts.heads.reference.parameters import Place, attention_places, conv_places, places_of


def test_a_dense_kernel_of_heads_is_split_by_head() -> None:
    place = attention_places(heads=2, residual=True, temporal=False, external=False)["key_embedding/kernel"]
    ours = torch.arange(12.0).reshape(4, 3)  # two heads of two, from three channels
    theirs = place.to_reference(ours)
    assert theirs.shape == (3, 2, 2)
    assert theirs[1, 1, 0] == ours[2, 1]
    assert torch.equal(place.from_reference(theirs), ours)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_kernel_comes_back_from_the_references_layout(transposed: bool) -> None:
    place = conv_places("", "", transposed=transposed)["kernel"]
    ours = torch.arange(54.0).reshape(2, 3, 3, 3)
    theirs = place.to_reference(ours)
    assert theirs.shape == ((3, 3, 2, 3) if transposed else (3, 3, 3, 2))
    assert theirs[0, 1].flatten()[0] == (ours[0, 0, 2, 1] if transposed else ours[0, 0, 0, 1])
    assert torch.equal(place.from_reference(theirs), ours)


def test_arrays_are_copies() -> None:
    ours = torch.zeros(2)
    array = Place(name="bias").to_reference(ours)
    array += 1
    assert not ours.any()
    taken = Place(name="bias").from_reference(np.zeros(2, dtype=np.float64))
    assert taken.dtype == torch.float32


def test_modules_of_other_kinds_have_no_places() -> None:
    with pytest.raises(CallError, match="no readout like Linear"):
        places_of(torch.nn.Linear(1, 1))
