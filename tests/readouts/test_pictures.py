"""Pictures for the report: components that find what varies, addresses that hold real images."""

from base64 import b64decode
from io import BytesIO

import numpy as np
from PIL import Image

from readouts.pictures import curves, principal_components, token_strips


def test_the_first_component_is_the_direction_that_varies_most() -> None:
    rng = np.random.default_rng(0)
    along = np.array([3.0, 4.0, 0.0, 0.0]) / 5
    amount = rng.normal(scale=10, size=(2, 2, 3, 3, 1))
    tokens = (amount * along + rng.normal(scale=0.01, size=(2, 2, 3, 3, 4)) + 7).astype(np.float32)
    found = principal_components(tokens)[..., 0]
    expected = amount[..., 0] - amount.mean()
    assert abs(np.corrcoef(found.ravel(), expected.ravel())[0, 1]) > 0.9999


def test_two_channels_leave_the_third_component_empty() -> None:
    tokens = np.random.default_rng(0).normal(size=(1, 2, 3, 3, 2)).astype(np.float32)
    components = principal_components(tokens)
    assert components.shape == (1, 2, 3, 3, 3)
    assert not components[..., 2].any()
    assert components[..., 0].std() > 0


def test_a_strip_has_a_tile_for_each_step(make_split) -> None:
    tokens = np.random.default_rng(0).normal(size=(4, 1, 2, 4, 4, 5))
    store = make_split("val", tokens, np.eye(7, dtype=int)[:4])
    strips = token_strips(store, [0, 3])
    assert sorted(strips) == [0, 3]
    kind, _, content = strips[0].partition(",")
    assert kind == "data:image/png;base64"
    image = Image.open(BytesIO(b64decode(content)))
    assert image.size == (2 * 112, 112)  # two steps side by side, four rows of 28 pixels


def test_curves_are_an_svg_with_a_line_a_readout() -> None:
    history = [
        {"step": step, "readout": kind, "train_loss": None if step == 0 else 1.0 / step, "mean_AP": step / 20}
        for step in (0, 10, 20)
        for kind in ("linear", "attention")
    ]
    kind, _, content = curves(history, "mean_AP", {"label frequency": 0.2}).partition(",")
    assert kind == "data:image/svg+xml;base64"
    text = b64decode(content).decode()
    assert "</svg>" in text
    assert all(name in text for name in ("linear", "attention", "label frequency"))
