"""The reference's constructor arguments: what JSON gives is checked before a head is built."""

from typing import Any

import pytest

from featcache.errors import CallError
from readouts.heads.reference.configs import (
    AttentionConfig,
    DPTConfig,
    LinearConfig,
    TrackingConfig,
    parsed,
)

TRACKING: dict[str, Any] = {"num_classes": 8, "num_params": 16, "num_heads": 2}


def test_lists_of_json_become_tuples() -> None:
    config = parsed(LinearConfig, {"num_classes": 3, "reduce_axis": [-2, -3]})
    assert config == LinearConfig(num_classes=3, reduce_axis=(-2, -3))


@pytest.mark.parametrize(
    ("changes", "outputs"),
    [
        ({}, 4),
        ({"num_classes": 6, "use_certainty": False}, 3),
        ({"num_classes": 4, "use_certainty": False, "predict_visibility": False}, 2),
    ],
)
def test_outputs_of_a_point(changes: dict[str, Any], outputs: int) -> None:
    assert parsed(TrackingConfig, TRACKING | changes).outputs_per_point == outputs


@pytest.mark.parametrize(
    ("kind", "entries", "told"),
    [
        (LinearConfig, {"num_classes": 1, "depth": 2}, "LinearConfig has no depth: known are num_classes"),
        (DPTConfig, {"output_resolution": [1, 2]}, "missing .*known are output_resolution"),
        (AttentionConfig, {"num_classes": 1, "num_params": 5, "num_heads": 2}, "num_params=5"),
        (AttentionConfig, {"num_classes": 1, "num_params": 4, "num_heads": 2, "output_shape": [1]}, "both"),
        (TrackingConfig, TRACKING | {"predict_visibility": False}, "use_certainty refines visibility"),
        (TrackingConfig, TRACKING | {"num_frames": 24}, "num_frames=24 must be temporal_tile_size=8"),
        (TrackingConfig, TRACKING | {"num_classes": 6}, "num_classes=6 must be 4 outputs a point"),
        (
            TrackingConfig,
            TRACKING | {"output_activation": "tanh"},
            "output_activation='tanh' are not supported",
        ),
    ],
)
def test_impossible_configurations_are_refused(kind: Any, entries: dict[str, Any], told: str) -> None:
    with pytest.raises(CallError, match=told):
        parsed(kind, entries)
