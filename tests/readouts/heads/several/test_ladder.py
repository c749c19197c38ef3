"""The ladder: its passes clip by clip are autograd's, and it has as many rungs as layers."""

import pytest
import torch

from featcache.errors import CallError
from readouts.tokens.prepared import prepare_batch
from readouts.training.step import backward
from tests.readouts.heads.several.of_layers import head_of, preparation, tokens_of_layers


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


@pytest.mark.parametrize("kind", ["ladder", "dpt_layers"])
def test_another_number_of_layers_is_refused(kind: str) -> None:
    with pytest.raises(CallError, match="was given 2"):
        head_of(kind)(list(tokens_of_layers().values())[:2])
