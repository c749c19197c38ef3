"""What all heads promise: initial values from a seed, float32 outputs, settings that are read."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from featcache.errors import CallError
from readouts.heads import HEADS, Readout, build_head, settings_of
from readouts.heads.layers import Dropout, dense, normal_parameter

SMALL: dict[str, dict[str, Any]] = {
    "linear": {},
    "attention": {"width": 32, "heads": 4},
    "tracking": {
        "width": 32,
        "heads": 4,
        "n_frames": 4,
        "temporal_tiles": 2,
        "mlp_hidden": 8,
        "query_channels": 8,
    },
    "dpt": {"features": 8, "head_channels": 8, "n_frames": 2, "out_rows": 9, "out_columns": 18},
    "attention_multi": {"width": 32, "heads": 4, "n_queries": 2},
    "pooled_mlp": {"hidden": 8, "dropout": 0.0},
    "correlation": {"dim": 8, "hidden": 8, "radius": 1, "n_frames": 4},
}
"""Settings of small heads for tokens of 2 x 4 a step; every new kind has to be entered here."""


def small(kind: str, seed: int) -> Readout:
    generator = torch.Generator().manual_seed(seed)
    return build_head(
        kind, channels=16, steps=2, n_outputs=3, rows=2, columns=4, generator=generator, **SMALL[kind]
    )


def inputs(kind: str, tokens: Tensor) -> list[Tensor]:
    return [tokens, torch.linspace(0, 1, 12).reshape(2, 3, 2)] if HEADS[kind].gives == "tracks" else [tokens]


@pytest.mark.parametrize("kind", HEADS)
def test_a_seed_names_a_head(kind: str) -> None:
    def weights(seed: int) -> list[Tensor]:
        head = small(kind, seed)
        return [parameter.detach() for parameter in head.parameters()]

    before = torch.get_rng_state()
    first, again, other = weights(7), weights(7), weights(8)
    assert torch.equal(torch.get_rng_state(), before), "the global generator stays out of it"
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


@pytest.mark.parametrize(("kind", "n_read"), [("attention", 1), ("attention_multi", 2)])
def test_attention_heads_draw_their_values_in_this_order(kind: str, n_read: int) -> None:
    """Another order would be other heads under the same seeds, and other scores of the same runs."""
    head, generator = small(kind, 7), torch.Generator().manual_seed(7)
    expected = {"trunk.temporal": normal_parameter(2, 16, generator=generator)}
    layers = [("trunk.attention.key", 16, 32), ("trunk.attention.value", 16, 32)]
    layers += [("trunk.projection", 32, 32), ("trunk.mlp.0", 32, 128), ("trunk.mlp.2", 128, 32)]
    expected |= {f"{name}.weight": dense(*size, generator=generator).weight for name, *size in layers}
    expected["query"] = normal_parameter(n_read, 4, 8, generator=generator)
    expected["classifier.weight"] = dense(n_read * 32, 3, generator=generator).weight
    found = dict(head.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    constant = {name for name, value in found.items() if value.unique().numel() == 1}
    assert found.keys() == expected.keys() | constant


def test_a_head_that_neither_pools_nor_reads_is_no_head() -> None:
    with pytest.raises(
        NotImplementedError, match="Readout has neither a pooling query nor a summary nor a forward"
    ):
        Readout()(torch.zeros(1, 1, 1, 2))


@pytest.mark.parametrize("kind", HEADS)
def test_half_precision_tokens_are_read_in_single_precision(kind: str) -> None:
    head = small(kind, 1)
    tokens = torch.randn(2, 2, 8, 16, generator=torch.Generator().manual_seed(2)).half()
    half, single = (head(*inputs(kind, given)) for given in (tokens, tokens.float()))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, single, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    head = small(kind, 1)
    tokens = torch.randn(2, 2, 8, 16, generator=torch.Generator().manual_seed(2))
    head(*inputs(kind, tokens)).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_what_heads_give_and_what_can_be_set() -> None:
    assert {kind: head.gives for kind, head in HEADS.items()} == {
        "linear": "vector", "attention": "vector", "attention_multi": "vector", "pooled_mlp": "vector",
        "tracking": "tracks", "correlation": "tracks", "dpt": "fields",
    }  # fmt: skip
    assert settings_of("linear") == {}
    assert settings_of("pooled_mlp") == {"hidden": 512, "dropout": 0.1}
    assert settings_of("attention_multi") == {"width": 1024, "heads": 16, "dropout": 0.0, "n_queries": 4}
    assert settings_of("correlation") == {"n_frames": 16, "dim": 128, "radius": 3, "hidden": 256}
    with pytest.raises(CallError, match="no readout is called 'mlp'"):
        settings_of("mlp")


def test_a_head_that_reads_maps_needs_their_grid() -> None:
    with pytest.raises(CallError, match="the dpt readout reads tokens as a map: give the rows and columns"):
        build_head("dpt", channels=4, steps=1, n_outputs=1)


def test_unknown_heads_and_settings_are_refused() -> None:
    with pytest.raises(
        CallError, match="no readout is called 'mlp': known are linear, attention, tracking, dpt"
    ):
        build_head("mlp", channels=4, steps=1, n_outputs=1)
    with pytest.raises(CallError, match="no setting depth: it has width, heads"):
        build_head("attention", channels=4, steps=1, n_outputs=1, depth=2)
    with pytest.raises(CallError, match="no setting width: it has none"):
        build_head("linear", channels=4, steps=1, n_outputs=1, width=2)
    with pytest.raises(CallError, match="width=10 must be a multiple of heads=4"):
        build_head("attention", channels=4, steps=1, n_outputs=1, width=10, heads=4)


@pytest.mark.parametrize("kind", SMALL)
def test_all_that_a_head_drops_follows_from_one_generator(kind: str) -> None:
    settings = settings_of(kind)
    head = build_head(
        kind, channels=16, steps=2, n_outputs=3, rows=2, columns=4,
        **SMALL[kind] | ({"dropout": 0.5} if "dropout" in settings else {}),
    )  # fmt: skip
    generator = torch.Generator()
    head.draw_dropout_from(generator)
    drops = [module for module in head.modules() if isinstance(module, nn.Dropout)]
    assert bool(drops) == ("dropout" in settings)
    assert all(isinstance(module, Dropout) and module.generator is generator for module in drops)
