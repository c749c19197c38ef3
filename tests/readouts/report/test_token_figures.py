"""Token figures: norms and ranks of every layer, strips of the clips that are shown, kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from featcache.store.feature_store import FeatureStore
from readouts.report.token_figures import token_figures

MakeSplit = Callable[..., FeatureStore]


@pytest.fixture
def store(make_split: MakeSplit) -> FeatureStore:
    """Tokens of length 5 along two of four channels, with equal shares."""
    tokens = np.zeros((6, 1, 2, 2, 2, 4))
    tokens[:, :, 0, :, :, 0] = tokens[:, :, 1, :, :, 1] = 5
    tokens[::2] *= -1
    return make_split("val", tokens, np.eye(7, dtype=int)[:6], skipped={3: "torn"})


def test_norm_and_ranks_by_hand(store: FeatureStore, tmp_path: Path) -> None:
    (layer,) = token_figures(store, [0, 4], tmp_path)
    assert (layer.layer, layer.norm) == ("1", 5.0)
    # Clips 0, 2, 4 against 1, 5: both directions vary alike, and a little together.
    assert layer.participation_ratio == pytest.approx(2, abs=0.01)
    assert layer.entropy_rank == pytest.approx(2, abs=0.01)
    assert sorted(layer.strips) == ["0", "4"]
    assert all(strip.startswith("data:image/png") for strip in layer.strips.values())


def test_it_is_read_once(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = token_figures(store, [0], tmp_path)
    monkeypatch.delattr(FeatureStore, "read")
    assert token_figures(store, [0], tmp_path) == first


def test_a_torn_file_is_made_anew(store: FeatureStore, tmp_path: Path) -> None:
    first = token_figures(store, [0], tmp_path)
    (file,) = (tmp_path / "token_figures").iterdir()
    file.write_text("{")
    assert token_figures(store, [0], tmp_path) == first
