"""Costs on the page: bytes of the row's own stores, seconds shared by the runs of one pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.manifest import load_manifest
from featcache.store.feature_store import FeatureStore
from readouts.report import figures
from readouts.report.costs import COSTS, cost_figures
from readouts.results.table import add_run
from readouts.results.task_results import load_task_results


def test_what_a_configuration_cost(
    make_row: Callable[..., dict[str, Any]],
    make_split: Callable[..., FeatureStore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores = [
        make_split(role, np.zeros((6, 1, 2, 2, 2, 8)), np.eye(7, dtype=int)[:6]) for role in ("train", "val")
    ]
    for store in stores:
        (store.path / "runs.jsonl").write_text('{"seconds": 3.0}\n')
    of = {f"{store.attrs['role']}_fingerprint": store.fingerprint for store in stores}
    rows = [make_row(run="a", seconds=32.0, together=16, test=0.9, **of), make_row(run="b", backbone="gone")]
    for row in rows:
        add_run(tmp_path, row["run"], [row])
    drawn: list[Any] = []

    def listen(points: Any, **named: Any) -> str:
        drawn.append((points, named))
        return "data:"

    monkeypatch.setattr(figures, "scores_by_cost", listen)
    (found,) = cost_figures(load_task_results(tmp_path, stores, load_manifest())[0])
    ((points, named),) = drawn
    assert found.title == "Fly behaviour"
    # Val, as b has no test; joules are unknown; b's stores are gone.
    assert named == {"costs": COSTS, "score": "mAP on val\n(higher is better)"}
    (point,) = points
    assert point.spent == (pytest.approx(2 * 6 * 8 * 8 * 2 / 1e6), 6.0, 2.0, None)
    assert (point.backbone, point.score) == ("toy", 0.5)


def test_a_backbone_costs_the_same_whether_or_not_a_row_was_scored_on_test(
    make_row: Callable[..., dict[str, Any]],
    make_split: Callable[..., FeatureStore],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores = {
        role: make_split(role, np.zeros((6, 1, 2, 2, 2, 8)), np.eye(7, dtype=int)[:6])
        for role in ("train", "val", "test")
    }
    of = {f"{role}_fingerprint": store.fingerprint for role, store in stores.items()}
    selected = make_row(run="a", val=0.9, test=0.8, **of)
    other = make_row(run="b", readout="attention", **{**of, "test_fingerprint": None})
    for row in (selected, other):
        add_run(tmp_path, row["run"], [row])
    spent: list[float] = []
    monkeypatch.setattr(
        figures, "scores_by_cost", lambda points, **named: spent.extend(one.spent[0] for one in points) or ""
    )
    cost_figures(load_task_results(tmp_path, list(stores.values()), load_manifest())[0])
    assert spent == pytest.approx([3 * 6 * 8 * 8 * 2 / 1e6] * 2)
