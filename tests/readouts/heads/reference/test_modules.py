"""What the reference's wrappers add, by hand; against its own outputs they are tested in test_reference."""

import pytest
import torch

from readouts.heads import load_reference
from readouts.heads.reference.configs import EmbeddingConfig, TrackingConfig
from readouts.heads.reference.modules import FourierEmbedding, Persistence, ReferenceTracking
from readouts.heads.tracking import TrackingReadout


def test_persistence_repeats_the_last_frame() -> None:
    frames = torch.arange(4.0).reshape(1, 2, 1, 2, 1)
    assert Persistence(n_frames=3)(x=frames).flatten().tolist() == [2, 3, 2, 3, 2, 3]
    assert load_reference("persistence", {}, num_output_frames=3)(x=frames).shape == (1, 3, 1, 2, 1)


def test_an_embedding_of_one_axis_is_the_same_along_the_others() -> None:
    embed = FourierEmbedding(None, EmbeddingConfig(num_fourier_bases=1, update_type="replace", axes=(-2,)))
    found = embed(torch.zeros(2, 4, 3, 5))
    # Positions -1, 0, 1: sines of -pi, 0 and pi, then cosines.
    expected = torch.tensor([[0.0, -1.0], [0.0, 1.0], [0.0, -1.0]]).expand(2, 4, 3, 2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("visibility", "certainty", "keys"),
    [
        (True, True, {"values", "visible", "logits_visible", "logits_certainty"}),
        (True, False, {"values", "visible", "logits_visible"}),
        (False, False, {"values"}),
    ],
)
def test_a_tracking_head_gives_what_it_predicts(visibility: bool, certainty: bool, keys: set[str]) -> None:
    n_outputs = 2 + visibility + certainty
    config = TrackingConfig(
        num_classes=2 * n_outputs,
        num_params=8,
        num_heads=2,
        predict_visibility=visibility,
        use_certainty=certainty,
    )
    head = TrackingReadout(channels=4, steps=2, width=8, heads=2, n_outputs_per_point=n_outputs)
    assert ReferenceTracking(head, config)(torch.zeros(1, 2, 3, 4), torch.zeros(1, 5, 2)).keys() == keys
