"""The parts that vision transformers share: patches, states, position tables, by hand."""

import numpy as np
import pytest
import torch
from einops import rearrange

from featcache.backbones import parts
from featcache.backbones.parts import PatchEmbedding, attend, sinusoid, stretched, tokens_after
from featcache.spec import Layer, TokenGrid


def test_sinusoid_by_hand() -> None:
    table = sinusoid(3, 4).numpy()
    np.testing.assert_array_equal(table[0], [0, 1, 0, 1])
    np.testing.assert_allclose(table[2], [np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)], rtol=1e-7)


def test_stretching_is_linear_between_half_pixel_centres() -> None:
    # One step, one row, columns 0 and 4, each seen twice as fine: centres at -1/4, 1/4, 3/4, 5/4.
    table = torch.tensor([[0.0], [4.0]])
    found = stretched(table, (1, 1, 2), (1, 1, 4))
    assert found[:, 0].tolist() == [0, 1, 3, 4]


def test_axes_are_steps_rows_columns() -> None:
    table = torch.arange(2.0).repeat_interleave(6)[:, None]
    found = stretched(table, (2, 2, 3), (2, 4, 6))
    assert torch.equal(found[:, 0], torch.arange(2.0).repeat_interleave(24))


@pytest.mark.parametrize("grid", [(1, 2, 2), (3, 1, 2)])
def test_the_same_grid_is_the_same_table(grid: tuple[int, int, int]) -> None:
    table = torch.rand(int(np.prod(grid)), 3)
    assert stretched(table, grid, grid) is table


@pytest.mark.parametrize(("patch", "kernel"), [((2, 4, 3), (2, 4, 3)), ((1, 4, 3), (4, 3))])
def test_a_patch_embedding_is_its_convolution(patch: tuple[int, int, int], kernel: tuple[int, ...]) -> None:
    embedding = PatchEmbedding(patch, 5, image=len(kernel) == 2)
    assert embedding.weight.shape == (5, 3, *kernel)
    draw = torch.Generator().manual_seed(0)
    for parameter in embedding.parameters():
        torch.nn.init.normal_(parameter, generator=draw)
    frames = torch.rand(2, 4, 3, 8, 9, generator=draw)
    weight = embedding.weight if len(kernel) == 3 else rearrange(embedding.weight, "d c y x -> d c 1 y x")
    video = rearrange(frames, "b f c y x -> b c f y x")
    expected = torch.nn.functional.conv3d(video, weight, embedding.bias, stride=patch)
    torch.testing.assert_close(embedding(frames), rearrange(expected, "b d t h w -> b t (h w) d"))


ONE_TOKEN = TokenGrid(steps=1, rows=1, columns=1, channels=1)


def test_tokens_are_kept_at_the_layers_asked_for_and_no_others() -> None:
    blocks = [lambda state: state + 1, lambda state: (state * 10, "attention"), lambda state: state - 3]
    layers = (Layer(2), Layer(0), Layer(3, normed=True))
    kept = tokens_after(blocks, torch.neg, torch.ones(1, 1, 1), layers, ONE_TOKEN)
    assert {layer: float(state) for layer, state in kept.items()} == {
        Layer(0): 1.0, Layer(2): 20.0, Layer(3, normed=True): -17.0,
    }  # fmt: skip
    assert list(tokens_after(blocks[:1], None, torch.ones(1, 1, 1), (Layer(1),), ONE_TOKEN)) == [Layer(1)]


def test_attention_by_hand() -> None:
    # Two heads of one channel: queries of 0 attend to both tokens alike.
    qkv = torch.tensor([[[0.0, 0, 5, 5, 1, 3], [0, 0, 7, 9, 2, 5]]])
    assert attend(qkv, heads=2).tolist() == [[[1.5, 4.0], [1.5, 4.0]]]


def test_capped_attention_is_the_same_a_few_sequences_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    qkv = 8 * torch.randn(5, 6, 3 * 8, generator=torch.Generator().manual_seed(0))
    whole = attend(qkv, 2, soft_cap=2.0)
    # Two sequences of 6 x 6 logits of 2 heads, in float32, and not a third.
    monkeypatch.setattr(parts, "CACHED_LOGIT_BYTES", 3 * 4 * 2 * 36 - 1)
    sizes: list[int] = []
    capped = parts._capped_attention
    monkeypatch.setattr(
        parts, "_capped_attention", lambda some, *rest: [sizes.append(len(some)), capped(some, *rest)][1]
    )
    assert torch.equal(attend(qkv, 2, soft_cap=2.0), whole)
    assert sizes == [2, 2, 1]
    q, k, v = rearrange(qkv, "b s (qkv h d) -> qkv b h s d", qkv=3, h=2)
    by_hand = (2 * torch.tanh(q @ k.mT / 2 / 2)).softmax(-1) @ v
    torch.testing.assert_close(whole, rearrange(by_hand, "b h s d -> b s (h d)"))
