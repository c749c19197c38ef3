"""The tracking readout: the order of its outputs, and what they mean."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.errors import CallError
from readouts.heads.tracking import TrackingReadout, as_tracks
from readouts.tokens.implicit import TemporalResize
from readouts.tokens.prepared import PreparedTokens

SIZES: dict[str, Any] = {
    "channels": 6, "steps": 2, "n_frames": 4, "temporal_tiles": 2, "width": 8, "heads": 2, "mlp_hidden": 8,
    "query_channels": 8,
}  # fmt: skip


def tiny(**config: Any) -> TrackingReadout:
    return TrackingReadout(**SIZES | config, generator=torch.Generator().manual_seed(0))


def tokens(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_frames_are_ordered_by_tile_then_by_frame_within() -> None:
    head = tiny()
    queries = tokens(1, 3, 2).sigmoid()
    tracks = head(tokens(1, 2, 5, 6), queries)
    assert tracks.shape == (1, 4, 3, 4)
    # What the attention gives for query q and tile k lies at row 2 q + k: two frames of four outputs.
    seen: list[Tensor] = []
    head.attention.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    head(tokens(1, 2, 5, 6), queries)
    for q, k, t, o in product(range(3), range(2), range(2), range(4)):
        assert tracks[0, 2 * k + t, q, o] == seen[0][0, 2 * q + k, 4 * t + o]


def test_queries_do_not_see_each_other() -> None:
    head, features, queries = tiny(), tokens(1, 2, 5, 6), tokens(1, 3, 2).sigmoid()
    padded = torch.cat([queries, torch.full((1, 4, 2), -1.0)], dim=1)
    torch.testing.assert_close(head(features, padded)[:, :, :3], head(features, queries))


def test_one_point_in_one_tile_keeps_its_axes() -> None:
    head = tiny(temporal_tiles=1)
    many = head(tokens(2, 2, 5, 6), tokens(2, 3, 2).sigmoid())
    one = head(tokens(2, 2, 5, 6), tokens(2, 3, 2).sigmoid()[:, :1])
    assert one.shape == (2, 4, 1, 4)
    torch.testing.assert_close(one, many[:, :, :1])


def test_prepared_tokens_are_resized_in_time() -> None:
    head, features = tiny(steps=2), tokens(2, 1, 5, 6)
    repeated = head(features.expand(-1, 2, -1, -1), tokens(2, 3, 2))
    resized = head(PreparedTokens(features, TemporalResize.by(torch.ones(2, 1))), tokens(2, 3, 2))
    torch.testing.assert_close(resized, repeated)


def test_a_point_is_visible_where_the_head_sees_it_and_is_certain() -> None:
    def logit(probability: float) -> float:
        return float(torch.tensor(probability).logit())

    # Probabilities of being seen and of being certain, with their products 0.72, 0.42 and 0.475.
    pairs = [(0.9, 0.8), (0.6, 0.7), (0.5, 0.95)]
    outputs = torch.tensor([[[[0.0, logit(0.25), logit(s), logit(c)] for s, c in pairs]]], requires_grad=True)
    tracks = as_tracks(outputs)
    assert tracks.visible is not None and not tracks.visible.requires_grad
    assert tracks.visible.flatten().tolist() == [1.0, 0.0, 0.0]
    torch.testing.assert_close(tracks.points, torch.tensor([0.5, 0.25]).expand(1, 1, 3, 2))
    lower = as_tracks(outputs, threshold=0.45).visible
    assert lower is not None and lower.flatten().tolist() == [1.0, 0.0, 1.0]


def test_heads_without_certainty_or_visibility_say_less() -> None:
    tracks = as_tracks(torch.zeros(1, 2, 3, 3))
    assert tracks.certainty_logits is None
    assert tracks.visible is not None and tracks.visible.unique().tolist() == [0.5]
    assert as_tracks(torch.zeros(1, 2, 3, 2)).visible is None


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"n_frames": 5}, "n_frames=5 must be a multiple of temporal_tiles=2"),
        ({"temporal_tiles": 0}, "n_frames=4 must be a multiple of temporal_tiles=0"),
        ({"n_outputs_per_point": 5}, "n_outputs_per_point=5 must be 2"),
        ({"heads": 3}, "width=8 must be a multiple of heads=3"),
    ],
)
def test_impossible_heads_are_refused(config: dict[str, Any], told: str) -> None:
    with pytest.raises(CallError, match=told):
        tiny(**config)
