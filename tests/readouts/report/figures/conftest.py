"""How tests look at a picture: the text of an SVG, the pixels of an image."""

from base64 import b64decode
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

MAX_BYTES = 250_000
"""Of an address in the page."""


@pytest.fixture
def svg_of() -> Callable[[str], str]:
    """The SVG behind an address; matplotlib writes each of its texts as a comment."""

    def decode(address: str) -> str:
        kind, _, content = address.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert len(address) < MAX_BYTES
        return b64decode(content).decode()

    return decode


@pytest.fixture
def pixels_of() -> Callable[[str], np.ndarray]:
    """The pixels [Y, X, 3] of the image behind an address."""

    def decode(address: str) -> np.ndarray:
        kind, _, content = address.partition(",")
        assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
        assert len(address) < MAX_BYTES
        return np.asarray(Image.open(BytesIO(b64decode(content))).convert("RGB")).astype(int)

    return decode
