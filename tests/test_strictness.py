"""What makes all other tests strict is on in each process that runs them: pytest-xdist starts its own."""

import warnings

import pytest
import torch
from jaxtyping import TypeCheckError

from featcache.resampling import resize_bilinear
from readouts.metrics.area import latitude_weights


def test_shapes_in_signatures_are_checked() -> None:
    with pytest.raises(TypeCheckError, match="resize_bilinear"):
        resize_bilinear(torch.zeros(2, 3), 4, 4)
    with pytest.raises(TypeCheckError, match="latitude_weights"):
        latitude_weights("3")  # type: ignore[arg-type]


def test_a_warning_is_an_error() -> None:
    with pytest.raises(UserWarning, match="noticed"):
        warnings.warn("noticed", stacklevel=1)
