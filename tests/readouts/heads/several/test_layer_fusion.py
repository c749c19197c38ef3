"""Heads of several layers: one pass a layer, the numbers of each layer's own pass, every weight learns."""

import pytest
import torch

from readouts.heads import LAYER_HEADS
from readouts.heads.base import find_together, forward_together
from readouts.tokens.pooling import Pooled
from readouts.tokens.prepared import prepare_batch
from readouts.training.step import backward
from tests.readouts.heads.several.of_layers import LAYERS, head_of, preparation, tokens_of_layers


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
