"""A step of a readout of four layers, forward and backward, beside four steps of readouts of one layer each.

All read batches of float16 tokens of their own for every layer, as from a store of four layers; on a GPU they
lie in its memory. What a readout of four layers costs beyond the reading is what it adds to the four.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from featcache.spec import Layer
from readouts.heads import Readout, build_head
from readouts.tokens.prepared import TokenPreparation, prepare_batch
from readouts.training.step import backward
from tests.benchmarks.attention_step import CHANNELS, STEPS, draw_tokens
from tests.benchmarks.side_by_side import Claim, claim, in_turn

LAYERS = tuple(Layer(block) for block in (3, 6, 9, 12))
JOINT = ("attention_layers", "ladder")


def draw_head(kind: str, small: bool, layers: tuple[Layer, ...]) -> Readout:
    """A readout in the benchmark's sizes, of the layers that it reads."""
    config = {} if kind == "ladder" else {"width": 64 if small else 1024, "heads": 16}
    head = build_head(
        kind,
        channels=CHANNELS,
        steps=2 * STEPS,
        n_outputs=4,
        n_layers=len(layers),
        generator=torch.Generator().manual_seed(0),
        **config,
    )
    head.layers = layers
    return head


def step(heads: Mapping[str, Readout], tokens: Mapping[Layer, Tensor], prepare: TokenPreparation) -> None:
    """Gradients of all heads from one batch."""
    for head in heads.values():
        head.zero_grad()
    given = prepare_batch(prepare, tokens if len(tokens) > 1 else next(iter(tokens.values())))
    backward(heads, given, {}, lambda _, outputs: outputs.square().sum()[None])


def measure(small: bool) -> list[Claim]:
    """Each readout of four layers over four of one layer, at most 1.2 of them."""
    tokens = {layer: draw_tokens(small) for layer in LAYERS}
    device = tokens[LAYERS[0]].device
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear").to(device)
    single = {layer: draw_head("attention", small, (layer,)).to(device) for layer in LAYERS}

    def one_by_one() -> None:
        for layer, head in single.items():
            step({"one": head}, {layer: tokens[layer]}, prepare)

    rivals = {"four of one layer": one_by_one}
    for kind in JOINT:
        head = draw_head(kind, small, LAYERS).to(device)
        rivals[kind] = lambda head=head: step({"all": head}, tokens, prepare)
    both = {"four": {f"{layer.name}": single[layer] for layer in LAYERS}}
    both["five"] = {**both["four"], "all": draw_head("attention_layers", small, LAYERS).to(device)}
    rivals |= {name: lambda heads=heads: step(heads, tokens, prepare) for name, heads in both.items()}
    times = in_turn(rivals, rounds=3 if small else 9)
    group = "readouts of four layers, forward and backward"
    return [
        *(
            claim(
                times, group=group, what=f"{kind} over four attention readouts of one layer", over=kind,
                under="four of one layer", target=1.2, at_least=False,
            )
            for kind in JOINT
        ),
        claim(times, group=group, what="attention_layers and the four in one pass over the four in one pass",
              over="five", under="four"),
    ]  # fmt: skip
