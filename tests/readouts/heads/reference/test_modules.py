"""What the reference's wrappers add, by hand; against its own outputs they are tested in test_reference."""

import pytest
import torch

from readouts.heads.reference.configs import TrackingConfig
from readouts.heads.reference.modules import ReferenceTracking
from readouts.heads.tracking import TrackingReadout


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
