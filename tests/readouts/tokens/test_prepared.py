"""Prepared tokens against tokens that are resized and normalised in full, and what they promise on memory."""

from collections.abc import Callable

import pytest
import torch
from einops import einsum
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from featcache.errors import CallError
from featcache.resampling import temporal_matrix
from readouts.heads import HEADS, AttentionReadout, LinearReadout, Readout, build_head, settings_of
from readouts.heads.attention import QueriedAttentionReadout
from readouts.tokens import prepared as tokens_module
from readouts.tokens.implicit import TemporalResize
from readouts.tokens.prepared import (
    Native,
    PreparedTokens,
    QuantizedTokens,
    ScatteredTokens,
    TokenPreparation,
    prepared,
)

C = 12


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def resized(features: Tensor, matrix: Tensor | None) -> PreparedTokens:
    return PreparedTokens(features, None if matrix is None else TemporalResize.by(matrix))


def by_name(name: str, steps: int) -> nn.Module:
    """A head for tokens of `steps`, with no parameter at a special value such as 0 or 1."""
    shape = {"channels": C, "n_outputs": 3}
    attention = shape | {"steps": steps, "width": 16, "heads": 4}
    make: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: LinearReadout(**shape),
        "attention": lambda: AttentionReadout(**attention),
        "three queries": lambda: AttentionReadout(**attention, n_queries=3),
    }
    head = make[name]().double()
    for number, parameter in enumerate(head.parameters()):
        parameter.data += 0.5 * draw(*parameter.shape, seed=number)
    return head


def outputs_and_gradients(
    head: nn.Module, features: Tensor, matrix: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    features = features.clone().requires_grad_()
    head.zero_grad()
    outputs = head(resized(features, matrix))
    outputs.backward(draw(*outputs.shape, seed=99, dtype=outputs.dtype))
    gradients = {"tokens": features.grad, **{n: p.grad.clone() for n, p in head.named_parameters()}}
    return outputs.detach(), gradients


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize(("n_in", "n_out"), [(8, 16), (6, 4)])
@pytest.mark.parametrize("name", ["linear", "attention", "three queries"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_a_head_of_prepared_tokens_is_the_head_of_resized_tokens(
    name: str, method: str, n_in: int, n_out: int, dtype: torch.dtype, close: float
) -> None:
    head, matrix = by_name(name, n_out), temporal_matrix(n_in, n_out, method).double()
    features = 0.3 + draw(2, n_in, 5, C, seed=7)
    in_full = einsum(matrix, features, "u t, b t n c -> b u n c")
    expected, gradients = outputs_and_gradients(head, in_full, None)
    gradients["tokens"] = einsum(matrix, gradients["tokens"], "u t, b u n c -> b t n c")

    found, found_gradients = outputs_and_gradients(head.to(dtype), features.to(dtype), matrix.to(dtype))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=close * expected.abs().max().item())
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for key, gradient in gradients.items():
        # A key bias has no effect, and so a gradient of rounding only.
        size = largest if key.endswith("key.bias") else gradient.abs().max().item()
        torch.testing.assert_close(
            found_gradients[key].double(), gradient, rtol=0, atol=close * size, msg=key
        )


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_queries_from_outside_read_prepared_tokens(method: str) -> None:
    head = queried_head()
    features, matrix = draw(2, 2, 3, C, dtype=torch.float32), temporal_matrix(2, 4, method)
    queries = draw(2, 6, 5, dtype=torch.float32)
    expected = head(einsum(matrix, features, "u t, b t n c -> b u n c"), queries)
    torch.testing.assert_close(head(resized(features, matrix), queries), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_float_tokens_become_what_their_numbers_say(dtype: torch.dtype) -> None:
    features = draw(2, 2, 3, C).to(dtype)
    prepare = TokenPreparation(steps_in=2, steps_out=4, method="cubic")
    found = prepare(features)
    assert found.centred.dtype == torch.float32
    expected = resized(features.double(), temporal_matrix(2, 4, "cubic").double())
    standardised = [tokens.standardised.written().double() for tokens in (found, expected)]
    torch.testing.assert_close(*standardised, rtol=0, atol=2e-6)
    torch.testing.assert_close(found.average.double(), expected.average, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["cubic", None])
def test_tokens_with_the_right_steps_are_not_resized(method: str | None) -> None:
    features = draw(2, 8, 3, 4).half()
    found = TokenPreparation(steps_in=8, steps_out=8, method=method)(features)
    assert found.matrix is None
    written = found.centred + found.mean[..., None]
    torch.testing.assert_close(written, features.float(), rtol=0, atol=1e-6)
    assert prepared(found) is found


def pair_of_heads() -> list[Readout]:
    shape = {"channels": C, "steps": 4, "n_outputs": 3, "heads": 4}
    return [AttentionReadout(width=16, **shape), AttentionReadout(width=32, **shape)]


def test_heads_share_the_statistics_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    gain_of = tokens_module.gain_of
    monkeypatch.setattr(tokens_module, "gain_of", lambda *given: seen.append(1) or gain_of(*given))
    prepare = TokenPreparation(steps_in=2, steps_out=4, method="linear")
    batch = prepare(draw(3, 2, 5, C).half())
    for head in [*pair_of_heads(), LinearReadout(channels=C, n_outputs=3)]:
        head(batch).sum().backward()
    assert batch.standardised.gain.shape == (3, 4, 5)
    assert len(seen) == 3, "once for each of three clips"


class LargestTensor(TorchDispatchMode):
    """Notes the most numbers that any operation gives back, and whether it casts from half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers, self.casts = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        found = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.numbers = max([self.numbers, *(leaf.numel() for leaf in found)])
        is_half = [[leaf.dtype == torch.float16 for leaf in leaves] for leaves in (given, found)]
        self.casts += any(is_half[0]) and not any(is_half[1])
        return out


def test_the_largest_tensor_of_a_pass_is_a_clip() -> None:
    features = draw(6, 2, 100, C).half()
    prepare = TokenPreparation(steps_in=2, steps_out=4, method="linear")
    heads = [*pair_of_heads(), LinearReadout(channels=C, n_outputs=3)]
    assert prepare(features).mean.shape == (6, 2, 100), "and the tile is made"
    with LargestTensor() as largest:
        batch = prepare(features)
        torch.stack([head(batch).sum() for head in heads]).sum().backward()
    assert largest.numbers == max(features[0].numel(), 6 * 4 * 4 * 100), "or the weights of 4 attention heads"
    # A cast of every clip in both passes of both attention heads.
    assert largest.casts == 6 * 2 * 2


def test_whole_batches_share_memory() -> None:
    prepare = TokenPreparation(steps_in=2, steps_out=4, method="linear")
    features = draw(3, 2, 5, C).half()
    address = prepare(features).centred.data_ptr()
    smaller = prepare(features[1:])
    assert smaller.standardised.native.data_ptr() == smaller.centred.data_ptr() == address
    torch.testing.assert_close(smaller.centred, prepared(features[1:]).centred, rtol=0, atol=0)
    other_shape = prepare(features[:, :, 1:])
    assert other_shape.centred.shape == (3, 2, 4, C)
    with_gradient = prepare(features.float().requires_grad_())
    assert with_gradient.centred.requires_grad
    torch.testing.assert_close(with_gradient.mean, prepared(features).mean, rtol=0, atol=0)


def test_training_goes_on_in_memory_that_an_evaluation_started() -> None:
    prepare, head = TokenPreparation(steps_in=2, steps_out=4, method="linear"), pair_of_heads()[0]
    features = draw(3, 2, 5, C).half()
    with torch.inference_mode():
        evaluated = head(prepare(features))
    trained = head(prepare(features))
    trained.sum().backward()
    torch.testing.assert_close(trained.detach(), evaluated.clone(), rtol=0, atol=0)


def queried_head() -> QueriedAttentionReadout:
    return QueriedAttentionReadout(channels=C, steps=4, query_channels=5, n_outputs=2, width=16, heads=4)


def test_a_backward_pass_of_whole_tokens_after_the_next_batch_is_refused() -> None:
    prepare = TokenPreparation(steps_in=2, steps_out=4, method="linear")
    products = prepare(draw(3, 2, 5, C).half()).standardised.dot(draw(1, C).float().requires_grad_())
    prepare(draw(3, 2, 5, C, seed=1).half()).centred  # noqa: B018
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        products.sum().backward()


def test_a_backward_pass_of_native_tokens_that_changed_is_refused() -> None:
    prepare, head = TokenPreparation(steps_in=2, steps_out=4, method="linear"), pair_of_heads()[0]
    features = draw(3, 2, 5, C).half()
    outputs = head(prepare(features))
    features.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


@pytest.mark.parametrize("asked", ["average", "standardised", "centred", "pooled"])
def test_statistics_are_the_same_bits_whatever_is_asked_first(asked: str) -> None:
    prepare, head = (
        TokenPreparation(steps_in=8, steps_out=16, method="cubic"),
        by_name("attention", 16).float(),
    )
    features = draw(3, 8, 5, C).half()
    alone, batch = resized(features, prepare.matrix), prepare(features)
    head(batch) if asked == "pooled" else getattr(batch, asked)
    expected, found = ([p.average, p.mean, p.standardised.gain, p.centred.clone()] for p in (alone, batch))
    assert all(map(torch.equal, found, expected))


def test_quantized_tokens_are_read_as_the_tokens_they_say() -> None:
    values = torch.randint(-127, 128, (3, 2, 5, C), dtype=torch.int8)
    scales = draw(3, 2, 5).abs().half()
    written = values * scales.float()[..., None]
    prepare = TokenPreparation(steps_in=2, steps_out=4, method="linear")
    quantized = QuantizedTokens(values=values, scales=scales)
    for head in [*pair_of_heads(), LinearReadout(channels=C, n_outputs=3)]:
        gradients = []
        for tokens in (quantized, written):
            head.zero_grad()
            outputs = head(prepare(tokens))
            outputs.sum().backward()
            gradients.append([outputs.detach(), *(p.grad for p in head.parameters())])
        assert all(map(torch.equal, *gradients))
    queries = draw(3, 1, 5).float()
    reads_all = queried_head()
    found = reads_all(prepare(quantized), queries)
    torch.testing.assert_close(found, reads_all(prepare(written), queries), rtol=0, atol=0)


SETTINGS: dict[str, dict[str, int]] = {
    "vector": {"width": 16, "heads": 2},
    "tracks": {"n_frames": 4, "temporal_tiles": 2, "width": 16, "heads": 2},
    "fields": {"n_frames": 2, "out_rows": 9, "out_columns": 18, "features": 8, "head_channels": 8},
}


def built(kind: str) -> Readout:
    settings = {
        name: value for name, value in SETTINGS[HEADS[kind].gives].items() if name in settings_of(kind)
    }
    head = build_head(kind, channels=C, steps=4, n_outputs=7, rows=2, columns=4, **settings).eval()
    for number, parameter in enumerate(head.parameters()):
        parameter.data += 0.1 * draw(*parameter.shape, seed=number).float()
    return head


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("pieces_per_clip", [1, 2])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_scattered_tokens_are_read_as_those_that_were_brought_together(
    kind: str, pieces_per_clip: int, dtype: str
) -> None:
    together = draw(3, 2, 8, C).half()
    if dtype == "int8":
        together = (40 * together).to(torch.int8)
    pieces = [piece.clone() for piece in together.flatten(0, 1).split(2 // pieces_per_clip)]
    scattered = ScatteredTokens(pieces=pieces, pieces_per_clip=pieces_per_clip)
    assert scattered.shape == together.shape
    assert torch.equal(scattered.together(), together)
    both: tuple[Native, Native] = (together, scattered)
    if dtype == "int8":
        scales = draw(3, 2, 8).abs().float()
        both = tuple(QuantizedTokens(values=values, scales=scales) for values in both)  # type: ignore[assignment]
    prepare, head = TokenPreparation(steps_in=2, steps_out=4, method="linear"), built(kind)
    inputs = {"tracks": {"queries": draw(3, 2, 2).float().sigmoid()}}.get(head.gives, {})
    found = []
    for tokens in both:
        head.zero_grad()
        outputs = head(prepare(tokens), **inputs)
        outputs.sum().backward()
        found.append([outputs.detach().clone(), *(p.grad for p in head.parameters())])
    assert found[0][0].abs().sum() > 0
    assert all(map(torch.equal, *found))


def test_the_matrix_is_no_parameter() -> None:
    prepare = TokenPreparation(steps_in=8, steps_out=16, method="cubic")
    assert not prepare.state_dict()
    assert not list(prepare.parameters())


def test_different_steps_need_a_method() -> None:
    with pytest.raises(CallError, match="8 steps and the readout wants 16"):
        TokenPreparation(steps_in=8, steps_out=16, method=None)


def test_a_head_is_told_the_steps_after_the_resize() -> None:
    head = pair_of_heads()[0]
    assert isinstance(prepared(draw(1, 2, 3, C)), PreparedTokens)
    with pytest.raises(CallError, match="embedding of 4 steps and was given 2"):
        head(prepared(draw(1, 2, 3, C).float()))
    assert head(resized(draw(1, 2, 3, C).float(), temporal_matrix(2, 4, "linear"))).shape == (1, 3)
