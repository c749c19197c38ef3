"""Heads of several layers: one pass a layer, the numbers of each layer's own pass, every weight learns."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.errors import CallError
from featcache.spec import Layer
from readouts.heads import LAYER_HEADS, Readout, build_head
from readouts.heads.base import find_together, forward_together
from readouts.tokens.pooling import Pooled
from readouts.tokens.prepared import PreparedTokens, QuantizedTokens, TokenPreparation, prepare_batch
from readouts.tokens.projecting import project
from readouts.training.step import backward

LAYERS = (Layer(1), Layer(2), Layer(3))
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "attention_layers": {"width": 16, "heads": 2},
    "ladder": {"width": 8, "heads": 2, "dropout": 0.0},
    "dpt_layers": {"features": 4, "head_channels": 4, "n_frames": 2, "out_rows": 5, "out_columns": 6},
}


def head_of(kind: str, *, seed: int = 0, n_layers: int = 3, **settings: Any) -> Readout:
    head = build_head(
        kind, channels=12, steps=4, n_outputs=5, rows=2, columns=2, n_layers=n_layers,
        generator=torch.Generator().manual_seed(seed), **{**SETTINGS.get(kind, {}), **settings},
    )  # fmt: skip
    head.layers = LAYERS[:n_layers]
    return head


def tokens_of_layers(seed: int = 1) -> dict[Layer, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(3, 2, 4, 12, generator=generator) for layer in LAYERS}


def preparation() -> TokenPreparation:
    return TokenPreparation(steps_in=2, steps_out=4, method="linear")


@pytest.mark.parametrize("kind", LAYER_HEADS)
def test_a_seed_names_a_head_and_every_layer_and_weight_counts(kind: str) -> None:
    first, again = (head_of(kind).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    head, tokens = head_of(kind), tokens_of_layers()
    if kind == "dpt_layers":  # a new one forecasts no change
        head.get_parameter("of_one.decoder.output.weight").data.normal_(
            generator=torch.Generator().manual_seed(3)
        )
    prepare = preparation()
    outputs = forward_together({"it": head}, prepare_batch(prepare, tokens), {})["it"]
    alone = head([prepare(native, number) for number, native in enumerate(tokens.values())])
    torch.testing.assert_close(alone, outputs, rtol=1e-6, atol=1e-6)
    for layer in LAYERS:
        changed = {**tokens, layer: tokens_of_layers(seed=7)[layer]}
        other = forward_together({"it": head}, prepare_batch(prepare, changed), {})["it"]
        assert (other - outputs).abs().max() > 1e-4, layer
    backward({"it": head}, prepare_batch(prepare, tokens), {}, lambda _, out: out.square().sum()[None])
    for name, weight in head.named_parameters():
        assert weight.grad is not None, name
        assert "key.bias" in name or weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", ["attention_layers", "ladder"])
def test_gradients_of_constants_are_those_of_autograd(kind: str) -> None:
    """The passes clip by clip, against the plain operations that take part in autograd."""
    heads, prepare = (head_of(kind), head_of(kind)), preparation()
    tokens = tokens_of_layers()
    learning = {layer: native.clone().requires_grad_() for layer, native in tokens.items()}
    for head, given in zip(heads, (tokens, learning), strict=True):
        backward({"it": head}, prepare_batch(prepare, given), {}, lambda _, out: out.square().sum()[None])
    largest = max(
        float(weight.grad.abs().max()) for weight in heads[0].parameters() if weight.grad is not None
    )
    for (name, one), other in zip(heads[0].named_parameters(), heads[1].parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5 * largest, msg=name)


def test_a_head_of_one_layer_finds_beside_several_what_it_finds_alone() -> None:
    single, joint, prepare = (
        head_of("attention", width=16, heads=2),
        head_of("attention_layers"),
        preparation(),
    )
    single.layers = LAYERS[1:2]
    tokens = tokens_of_layers()
    together = find_together({"one": single, "all": joint}, prepare_batch(prepare, tokens))
    alone = find_together({"one": single}, prepare(tokens[LAYERS[1]]))["one"]
    found = together["one"]
    assert isinstance(found, Pooled)
    assert isinstance(alone, Pooled)
    torch.testing.assert_close(found.tokens, alone.tokens, rtol=1e-6, atol=1e-6)
    parts = together["all"]
    assert isinstance(parts, tuple)
    assert len(parts) == 3


def test_int8_tokens_are_projected_as_what_they_stand_for() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-127, 128, (2, 2, 4, 12), generator=generator, dtype=torch.int8)
    scales = torch.rand(2, 2, 4, generator=generator)
    weight = torch.randn(3, 12, generator=generator)
    found = project(PreparedTokens(QuantizedTokens(values=values, scales=scales)), weight)
    whole = values.float() * scales[..., None]
    expected = (whole - whole.mean(dim=-1, keepdim=True)) @ weight.T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


def test_coarse_maps_are_of_deep_layers_and_fine_ones_of_shallow_layers() -> None:
    head = head_of("dpt_layers", n_layers=2)
    seen: list[float] = []
    for module in head.get_submodule("of_one.decoder.reassemble").children():
        module.register_forward_pre_hook(lambda _, given: seen.append(float(given[0].mean())))
    head([torch.full((1, 2, 4, 12), 1.0), torch.full((1, 2, 4, 12), 2.0)])
    assert seen == [2.0, 2.0, 1.0, 1.0]
    with pytest.raises(CallError, match="at most as many layers, not 5"):
        head_of("dpt_layers", n_layers=5)


@pytest.mark.parametrize("kind", ["ladder", "dpt_layers"])
def test_another_number_of_layers_is_refused(kind: str) -> None:
    with pytest.raises(CallError, match="was given 2"):
        head_of(kind)(list(tokens_of_layers().values())[:2])
