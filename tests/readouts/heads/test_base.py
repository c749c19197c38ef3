"""What all heads promise: initial values from a seed, float32 outputs, settings that are read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featcache.errors import CallError
from readouts.heads import (
    HEADS,
    AttentionReadout,
    LinearReadout,
    QueriedAttentionReadout,
    build_head,
    to_reference,
)


@pytest.mark.parametrize("kind", HEADS)
def test_a_seed_names_a_head(kind: str) -> None:
    config = {"width": 32, "heads": 4} if kind == "attention" else {}

    def weights(seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        head = build_head(kind, channels=16, steps=2, n_outputs=3, generator=generator, **config)
        return [parameter.detach() for parameter in head.parameters()]

    before = torch.get_rng_state()
    first, again, other = weights(7), weights(7), weights(8)
    assert torch.equal(torch.get_rng_state(), before), "the global generator stays out of it"
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def init_statistics(folder: Path) -> dict[str, Any]:
    path = folder / "golden" / "reference" / "readout_init_stats.json"
    return json.loads(path.read_text())["evals"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("task", "head", "config"),
    [
        ("flyvsfly_classification", "linear_classification", None),
        ("flyvsfly_classification", "attn_classification", {"width": 128, "n_outputs": 7}),
        ("calms21_classification", "attn_classification", {"width": 1024, "n_outputs": 4}),
        ("stir_2d_tracking", "points", {"width": 1024, "n_outputs": 8, "heads": 8}),
    ],
)
def test_initial_values_have_the_references_shapes_and_statistics(
    shared: Path, task: str, head: str, config: dict[str, Any] | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = {"channels": 768, "generator": generator}
    if config is None:
        module: nn.Module = LinearReadout(n_outputs=7, **shape)
    elif task == "stir_2d_tracking":
        module = QueriedAttentionReadout(steps=16, query_channels=512, **shape, **config)
    else:
        module = AttentionReadout(steps=16, **shape, **config)
    statistics = {
        name.removeprefix("attention_readout/"): entry
        for name, entry in init_statistics(shared)[task][head]["params"].items()
        if task != "stir_2d_tracking" or name.startswith("attention_readout/")
    }
    found = to_reference(module)
    assert found.keys() == statistics.keys()
    for name, array in found.items():
        expected, slack = statistics[name], 5.0 / array.size**0.5
        assert list(array.shape) == expected["shape"], name
        assert abs(array.std() - expected["std"]) <= slack * expected["std"], name
        assert abs(array.mean() - expected["mean"]) <= 2 * slack * expected["std"], name
        if name.endswith("kernel"):
            # Cut at two deviations of the uncut normal: 2 / 0.8796 = 2.2737 of what is left.
            assert np.abs(array).max() <= 2.2738 * array.shape[0] ** -0.5, name


@pytest.mark.parametrize("kind", HEADS)
def test_half_precision_tokens_are_read_in_single_precision(kind: str) -> None:
    config = {"width": 32, "heads": 4} if kind == "attention" else {}
    head = build_head(
        kind, channels=16, steps=2, n_outputs=3, generator=torch.Generator().manual_seed(1), **config
    )
    tokens = torch.randn(2, 2, 5, 16, generator=torch.Generator().manual_seed(2)).half()
    assert head(tokens).dtype == torch.float32
    torch.testing.assert_close(head(tokens), head(tokens.float()), rtol=1e-6, atol=1e-6)


def test_unknown_heads_and_settings_are_refused() -> None:
    with pytest.raises(CallError, match="no readout is called 'mlp': known are linear, attention"):
        build_head("mlp", channels=4, steps=1, n_outputs=1)
    with pytest.raises(CallError, match="no setting depth: it has width, heads"):
        build_head("attention", channels=4, steps=1, n_outputs=1, depth=2)
    with pytest.raises(CallError, match="no setting width: it has none"):
        build_head("linear", channels=4, steps=1, n_outputs=1, width=2)
    with pytest.raises(CallError, match="width=10 must be a multiple of heads=4"):
        build_head("attention", channels=4, steps=1, n_outputs=1, width=10, heads=4)
