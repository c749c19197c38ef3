"""The shared front and back of the vision transformers."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange

from featcache.backbones.encoder import ClipEncoder, PatchEmbedding, deepest, states_after
from featcache.backbones.vit_catalogue import VIT_INFOS
from featcache.spec import Layer, TokenGrid


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


def test_tokens_are_float32_and_pixels_are_prepared() -> None:
    info = replace(
        VIT_INFOS["dinov2_s"], input_size=(2, 2), n_frames=1, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
        grid=TokenGrid(steps=1, rows=2, columns=2, channels=3),
    )  # fmt: skip

    def model(frames: torch.Tensor, layers: tuple[Layer, ...]) -> dict[Layer, torch.Tensor]:
        assert frames.dtype == torch.bfloat16 and torch.is_inference_mode_enabled()
        return dict.fromkeys(layers, rearrange(frames, "b f c y x -> b f y x c"))

    encoder = ClipEncoder(
        info=info, layers=(Layer(0),), model=model, device=torch.device("cpu"), dtype=torch.bfloat16
    )
    tokens = encoder(torch.ones(1, 1, 3, 4, 4))[Layer(0)]
    assert tokens.dtype == torch.float32
    assert torch.equal(tokens, torch.full((1, 1, 2, 2, 3), 2.0))


def test_states_are_kept_at_the_layers_asked_for_and_no_others() -> None:
    blocks = [lambda state: state + 1, lambda state: (state * 10, "attention"), lambda state: state - 3]
    layers = (Layer(2), Layer(0), Layer(3, normed=True))
    kept = states_after(blocks, torch.neg, torch.ones(1, 1, 1), layers)
    assert {layer: float(state) for layer, state in kept.items()} == {
        Layer(0): 1.0, Layer(2): 20.0, Layer(3, normed=True): -17.0,
    }  # fmt: skip
    assert list(states_after(blocks[:1], None, torch.ones(1, 1, 1), (Layer(1),))) == [Layer(1)]


def test_the_deepest_of_layers() -> None:
    assert deepest((Layer(3), Layer(1))) == (3, False)
    assert deepest((Layer(3), Layer(12, normed=True))) == (12, True)
