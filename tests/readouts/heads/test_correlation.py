"""The correlation readout: its parts by hand, points that stay or move with what they look like, learning."""

from typing import Any

import pytest
import torch
from einops import einsum, rearrange
from torch import Tensor

from featcache.errors import CallError
from readouts.heads import CorrelationReadout
from readouts.heads.correlation import patches, similarities, soft_argmax
from readouts.heads.tracking import as_tracks
from readouts.tasks.losses import total_of, track_losses
from readouts.tokens.implicit import TemporalResize
from readouts.tokens.prepared import PreparedTokens

STEPS, SIDE, CHANNELS = 4, 8, 24


def tiny(**config: Any) -> CorrelationReadout:
    sizes = {
        "channels": CHANNELS,
        "steps": STEPS,
        "rows": SIDE,
        "columns": SIDE,
        "n_frames": STEPS,
        "hidden": 32,
    }
    return CorrelationReadout(**sizes | config, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]


def scene(n_clips: int, seed: int, *, still: bool = False) -> tuple[Tensor, Tensor]:
    """Four blobs of a feature each, moving straight over a background that stays, and their tracks."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(n_clips, 1, 4, 2, generator=generator) * 0.7 + 0.15
    speed = (torch.rand(n_clips, 1, 4, 2, generator=generator) - 0.5) * (0.0 if still else 0.6)
    tracks = (start + speed * torch.linspace(0, 1, STEPS)[:, None, None]).clamp(0.03, 0.97)
    centres = (torch.arange(SIDE) + 0.5) / SIDE
    x, y = ((centres - tracks[..., i, None]).square() / (2 * 0.08**2) for i in range(2))
    shape = (-x[..., None, :] - y[..., None]).exp()
    features = torch.randn(n_clips, 4, CHANNELS, generator=generator)
    blobs = einsum(shape, features, "b f q h w, b q c -> b f h w c")
    background = torch.randn(n_clips, 1, SIDE, SIDE, CHANNELS, generator=generator) * 0.5
    noise = torch.randn(n_clips, 1 if still else STEPS, SIDE, SIDE, CHANNELS, generator=generator) * 0.2
    return rearrange(blobs + background + noise, "b f h w c -> b f (h w) c"), tracks


def error(head: CorrelationReadout, tokens: Tensor, tracks: Tensor) -> float:
    with torch.no_grad():
        found = as_tracks(head(tokens, tracks[:, 0])).points
    return float((found - tracks).norm(dim=-1)[:, -1].mean())


def test_similarity_is_that_of_the_feature_at_the_query() -> None:
    # A map of 1 x 2 tokens (1, 0) and (0, 1): centres at x = 1/4 and 3/4, halfway between both features.
    maps = rearrange(torch.eye(2), "d w -> 1 d 1 1 w").expand(1, 2, 3, 1, 2)
    queries = torch.tensor([[[0.25, 0.5], [0.5, 0.5], [0.0, 0.9], [0.625, 0.1]]])
    found = similarities(maps, queries)
    assert found.shape == (1, 4, 3, 1, 2)
    half, tenth = 0.5**0.5, 10.0**-0.5
    expected = torch.tensor([[1.0, 0.0], [half, half], [1.0, 0.0], [tenth, 3 * tenth]])
    torch.testing.assert_close(found[0, :, 2, 0], expected)


def test_patches_repeat_the_edge_of_the_frame() -> None:
    values = torch.arange(12.0).reshape(1, 1, 1, 3, 4)
    inside, corner = (patches(values, torch.tensor([[[at]]]), 1)[0, 0, 0].tolist() for at in ((1, 1), (3, 0)))
    assert inside == [[0, 1, 2], [4, 5, 6], [8, 9, 10]]
    assert corner == [[2, 3, 3], [2, 3, 3], [6, 7, 7]]


def test_a_soft_maximum_is_a_mean_of_x_and_y() -> None:
    scores = torch.full((1, 1, 1, 3, 3), -1e4)
    scores[..., 0, 2] = 0.0
    scores[..., 1, 2] = torch.tensor(3.0).log()
    # Weights 1/4 at x = 1, y = -1 and 3/4 at x = 1, y = 0.
    found = soft_argmax(scores, torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([1.0, -0.25]))


def test_still_features_are_still_points() -> None:
    tokens, tracks = scene(2, 0, still=True)
    head = tiny()
    torch.nn.init.normal_(head.refine.get_submodule("2").weight)  # and learning does not change that
    torch.testing.assert_close(as_tracks(head(tokens, tracks[:, 0])).points, tracks, rtol=0, atol=1e-5)


def test_a_feature_that_jumps_by_whole_tokens_is_followed_exactly() -> None:
    tokens = torch.zeros(1, STEPS, SIDE, SIDE, CHANNELS)
    tokens += torch.randn(SIDE, SIDE, CHANNELS, generator=torch.Generator().manual_seed(1)) * 0.3
    mark = torch.randn(CHANNELS, generator=torch.Generator().manual_seed(2)) * 20
    for step, (row, column) in enumerate([(2, 3), (3, 3), (4, 5), (4, 4)]):
        tokens[0, step, row, column] = mark
    query = torch.tensor([[[3.5 / SIDE, 2.5 / SIDE]]])
    found = as_tracks(tiny()(rearrange(tokens, "b t h w c -> b t (h w) c"), query)).points[0, :, 0] * SIDE
    expected = torch.tensor([[3.5, 2.5], [3.5, 3.5], [5.5, 4.5], [4.5, 4.5]])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.25)


def test_a_new_head_follows_what_moves_and_learns_to_do_it_better() -> None:
    tokens, tracks = scene(24, 99)
    head = tiny(dim=32)
    still = float((tracks[:, -1] - tracks[:, 0]).norm(dim=-1).mean())
    before = error(head, tokens, tracks)
    assert before < 0.6 * still
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    for step in range(60):
        seen, true = scene(8, step)
        made, ones = as_tracks(head(seen, true[:, 0])), torch.ones(*true.shape[:3], 1)
        assert made.visible_logits is not None and made.certainty_logits is not None
        losses = track_losses(
            made.points, made.visible_logits, made.certainty_logits,
            targets=true, visible=ones, query_mask=ones[:, 0], target_mask=ones,
        )  # fmt: skip
        optimizer.zero_grad()
        total_of(losses).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert error(head, tokens, tracks) < 0.9 * before


def test_queries_do_not_see_each_other_and_padding_is_harmless() -> None:
    tokens, tracks = scene(2, 0)
    head, queries = tiny(), tracks[:, 0]
    padded = torch.cat([queries, torch.full((2, 3, 2), -1.0)], dim=1)
    outputs = head(tokens, padded)
    torch.testing.assert_close(outputs[:, :, :4], head(tokens, queries))
    outputs.square().sum().backward()
    gradients = [parameter.grad for parameter in head.parameters()]
    assert outputs.isfinite().all()
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_points_that_would_leave_the_frame_stay_in_it_and_are_pulled_back() -> None:
    tokens, tracks = scene(1, 0)
    head = tiny()
    with torch.no_grad():
        head.refine.get_submodule("2").weight.normal_(std=50.0)
    points = as_tracks(head(tokens, tracks[:, 0])).points
    assert ((points > 0) & (points < 1)).all()
    assert (points < 1e-3).any() or (points > 1 - 1e-3).any()
    (points - 0.5).square().sum().backward()
    assert head.refine.get_submodule("2").weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_steps_are_interpolated_to_frames() -> None:
    tokens, tracks = scene(1, 0)
    head = tiny(n_frames=2 * STEPS)
    assert head(tokens, tracks[:, 0]).shape == (1, 2 * STEPS, 4, 4)
    # The frames at the ends are those steps themselves, as in the reference's resize.
    torch.testing.assert_close(
        head(tokens, tracks[:, 0])[:, [0, -1]], tiny()(tokens, tracks[:, 0])[:, [0, -1]], rtol=1e-4, atol=1e-4
    )


def test_prepared_tokens_are_resized_in_time() -> None:
    tokens, tracks = scene(2, 0)
    repeated = tiny()(tokens[:, :1].expand(-1, STEPS, -1, -1), tracks[:, 0])
    resized = tiny()(PreparedTokens(tokens[:, :1], TemporalResize.by(torch.ones(STEPS, 1))), tracks[:, 0])
    torch.testing.assert_close(resized, repeated, rtol=1e-4, atol=1e-4)


def test_impossible_heads_and_other_grids_are_refused() -> None:
    with pytest.raises(CallError, match="radius=0 must be at least 1"):
        tiny(radius=0)
    with pytest.raises(CallError, match="is for 4 steps of 8 x 8 tokens and was given 4 of 63"):
        tiny()(torch.zeros(1, STEPS, 63, CHANNELS), torch.zeros(1, 1, 2))
