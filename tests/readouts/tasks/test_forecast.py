"""The weather task: residuals to forecasts, persistence, errors by area; against the reference, by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.errors import CallError, StoreError
from featcache.manifest import load_manifest
from featcache.store.targets import TargetArray, Targets
from readouts.heads import load_reference
from readouts.metrics.area import latitude_weights
from readouts.results.baselines import score_baselines
from readouts.tasks import load_task
from readouts.tasks.forecast import RESIDUAL_STD, Forecast

MakeTargets = Callable[..., Targets]
ROWS, COLUMNS, LEADS = 5, 8, 3


@pytest.fixture
def task() -> Forecast:
    """The benchmark's task on small fields, three leads ahead."""
    weather = load_task("weatherbench2", load_manifest())
    assert isinstance(weather, Forecast)
    return replace(weather, rows=ROWS, columns=COLUMNS, n_frames=LEADS)


def fields_of(
    make_targets: MakeTargets,
    fields: np.ndarray,
    places: np.ndarray,
    folder: str,
    latitude: np.ndarray | None = None,
) -> Targets:
    """Targets of fields [time, row, column, variable] and the steps of each clip [clip, lead]."""
    lines = np.linspace(-90, 90, fields.shape[1]) if latitude is None else latitude
    values, steps = fields.astype("<f4"), places.astype("<i4")
    return make_targets(
        len(places),
        folder,
        fields=TargetArray(
            shape=values.shape,
            dtype=values.dtype,
            axes=("time", "row", "column", "variable"),
            blocks=[values],
        ),
        places=TargetArray(shape=steps.shape, dtype=steps.dtype, axes=("clip", "lead"), blocks=[steps]),
        latitude=TargetArray(
            shape=lines.shape, dtype=np.dtype("<f4"), axes=("row",), blocks=[lines.astype("<f4")]
        ),
    )


@pytest.fixture
def stepping(make_targets: MakeTargets) -> Targets:
    """Seven time steps, each of one value: 10 times its number; a clip's are two apart."""
    values = np.broadcast_to(10.0 * np.arange(7)[:, None, None, None], (7, ROWS, COLUMNS, 3))
    return fields_of(make_targets, values, np.array([[0, 2, 4, 6], [1, 3, 5, 6]]), "stepping")


def numbers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def random_rows(n_clips: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([54000.0, 274.0, 0.0024])
    changes = torch.randn(n_clips, LEADS + 1, ROWS, COLUMNS, 3, generator=generator) * torch.tensor(
        [*RESIDUAL_STD.values()]
    )
    fields = means + changes.cumsum(dim=1)
    return {"last": fields[:, 0], "future": fields[:, 1:]}


def exact(rows: dict[str, Tensor]) -> Tensor:
    """The residuals that make the forecast perfect."""
    return (rows["future"] - rows["last"][:, None]) / torch.tensor([*RESIDUAL_STD.values()])


def test_the_benchmarks_settings() -> None:
    task = load_task("weatherbench2", load_manifest())
    assert isinstance(task, Forecast)
    assert (task.rows, task.columns, task.n_frames, task.n_outputs) == (181, 360, 16, 48)
    assert task.variables == task.output_names == ("Z500", "T850", "Q700")
    assert task.score == "Z500/rmwse"
    assert not task.higher_is_better
    assert task.head_config("linear") == {}
    assert task.predictions_kept == 4


def test_the_constants_are_the_references(shared: Path) -> None:
    files = sorted(shared.glob("golden/reference/data_constants*.json"))
    assert files
    dataset = load_manifest().dataset("weatherbench2")
    for file in files:
        weather = json.loads(file.read_text())["constants"]["weather"]
        assert tuple(weather["residual_std"]) == tuple(RESIDUAL_STD.values())
        assert set(weather["residual_mean"]) == {0.0}  # and so left out
        assert (list(dataset.pixels.mean), list(dataset.pixels.std)) == (weather["mean"], weather["std"])
        assert list(dataset.variables) == weather["order"]


@pytest.mark.golden("readout_weatherbench*")
def test_forecasts_are_the_references(golden: Any) -> None:
    """What the head gives inside the reference's wrapper, turned into a forecast by the task."""
    wrapped = load_reference("dpt", golden.under("param/"), **golden.meta["module_kwargs"])
    residuals: list[Tensor] = []
    wrapped.head.register_forward_hook(lambda _module, _inputs, output: residuals.append(output.detach()))
    inputs, expected = torch.from_numpy(golden.arrays["in/x"]), golden.arrays["out/y"]
    wrapped(x=inputs, y=torch.from_numpy(golden.arrays["in/y"]))
    std = np.array(golden.meta["module_kwargs"]["residual_std"])
    weather = load_task("weatherbench2", load_manifest())
    assert isinstance(weather, Forecast)
    _, n_frames, rows, columns, _ = expected.shape
    task = replace(weather, rows=rows, columns=columns, n_frames=n_frames, residual_std=tuple(std.tolist()))
    found = task.predicted(residuals[0], inputs[:, -1]).numpy()
    assert (np.abs(found - expected) <= 2e-5 * (np.abs(expected) + std)).all()


@pytest.mark.golden("readout_eulerian_persistence")
def test_the_baseline_is_the_references_persistence(golden: Any, make_targets: MakeTargets) -> None:
    inputs, expected = torch.from_numpy(golden.arrays["in/x"]), golden.arrays["out/y"]
    weather = load_task("weatherbench2", load_manifest())
    assert isinstance(weather, Forecast)
    _, n_frames, rows, columns, n_variables = expected.shape
    std = (1.0,) * n_variables
    task = replace(weather, rows=rows, columns=columns, n_frames=n_frames, residual_std=std)
    persistence = task.baselines(make_targets(1, places=np.zeros((1, 1))))["persistence"]
    outputs = persistence({"last": inputs[:, -1], "future": torch.from_numpy(expected)})
    np.testing.assert_array_equal(task.predicted(outputs, inputs[:, -1]).numpy(), expected)


def test_a_clip_is_its_places_in_the_fields(task: Forecast, stepping: Targets) -> None:
    rows = task.select(stepping, numbers(1, 0), numbers(0, 0), np.random.default_rng(0))
    assert rows["last"].shape == (2, ROWS, COLUMNS, 3)
    assert rows["future"].shape == (2, LEADS, ROWS, COLUMNS, 3)
    assert rows["last"][:, 0, 0, 0].tolist() == [10, 0]
    assert rows["future"][:, :, 4, 7, 2].tolist() == [[30, 50, 60], [20, 40, 60]]
    # A task of fewer leads takes the first of them.
    fewer = replace(task, n_frames=2).select(stepping, numbers(1), numbers(0), None)
    assert fewer["future"][:, :, 0, 0, 0].tolist() == [[30, 50]]


def test_fields_of_another_size_or_task_are_refused(
    task: Forecast, stepping: Targets, make_targets: MakeTargets
) -> None:
    labels = make_targets(2, "labels", labels=np.zeros((2, 7), np.uint8))
    for other, targets in ((replace(task, columns=9), stepping), (task, labels)):
        with pytest.raises(StoreError, match=r"does not hold fields \[5, [89], 3\]: run the same `scivid"):
            other.select(targets, numbers(0), numbers(0), None)


def test_a_perfect_forecast_costs_next_to_nothing(task: Forecast) -> None:
    rows = random_rows()
    perfect = exact(rows)
    best, still = (float(task.loss(outputs, rows)) for outputs in (perfect, torch.zeros_like(perfect)))
    assert best < 1e-4  # the rounding of 54000 in float32, in units of 404
    assert still > 0.5
    # One residual deviation off everywhere: weights average 1, leads weigh 1, 1 / sqrt 2, 1 / sqrt 3.
    off = float(task.loss(perfect + 1, rows))
    assert off == pytest.approx((1 + 1 / sqrt(2) + 1 / sqrt(3)) / 3, rel=1e-3)
    assert task.inputs(rows) == {}


def test_errors_are_in_physical_units(task: Forecast) -> None:
    rows = random_rows()
    outputs = exact(rows)
    outputs[:, 1] += 2.0
    scores = task.scores(task.per_clip(outputs, rows))
    for variable, std in zip(task.variables, RESIDUAL_STD.values(), strict=True):
        assert scores[f"{variable}/t=1/rmwse"] == pytest.approx(2 * std, rel=1e-3)
        assert scores[f"{variable}/t=0/rmwse"] < 1e-3 * std
        assert scores[f"{variable}/rmwse"] == pytest.approx(2 * std / 3, rel=1e-2)


def test_persistence_is_no_residual_and_scores_the_change(task: Forecast, stepping: Targets) -> None:
    scores = score_baselines(task, stepping, stepping, numbers(0, 1))
    assert list(scores) == ["persistence"]
    # Clip 0 changes by 20, 40, 60, clip 1 by 20, 40, 50: roots of mean squares.
    leads = [20.0, 40.0, sqrt((3600 + 2500) / 2)]
    for lead, expected in enumerate(leads):
        assert scores["persistence"][f"Z500/t={lead}/rmwse"] == pytest.approx(expected, rel=1e-5)
    assert scores["persistence"]["Q700/rmwse"] == pytest.approx(sum(leads) / 3, rel=1e-5)


def test_persistence_of_a_still_atmosphere_is_without_error(task: Forecast) -> None:
    last = random_rows()["last"]
    rows = {"last": last, "future": last[:, None].expand(-1, LEADS, -1, -1, -1).clone()}
    nothing = Targets(path=Path(), fingerprint="", parts={}, metadata={})
    outputs = task.baselines(nothing)["persistence"](rows)
    assert not outputs.any()
    assert set(task.scores(task.per_clip(outputs, rows)).values()) == {0.0}
    assert float(task.loss(outputs, rows)) == 0.0


def test_errors_at_the_poles_count_by_their_area(task: Forecast) -> None:
    rows = random_rows(1)
    outputs = exact(rows)
    outputs[:, :, 0] += 1.0  # the northernmost row only
    share = float(latitude_weights(ROWS)[0]) / ROWS
    assert task.scores(task.per_clip(outputs, rows))["T850/rmwse"] == pytest.approx(
        RESIDUAL_STD["T850"] * sqrt(share), rel=1e-3
    )


def test_a_forecast_needs_windows_of_fields(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("tasks: {moths: {title: M, kind: forecast, splits: {train: flyvsfly/train}}}")
    with pytest.raises(
        CallError, match=r"tasks\.moths: a forecast needs a data set with frame_size, windows"
    ):
        load_task("moths", load_manifest(file))


def test_what_defines_score_and_loss_is_identified(task: Forecast) -> None:
    changed = [
        replace(task, residual_std=(1.0, 1.0, 1.0)),
        replace(task, rows=ROWS + 1),
        replace(task, n_frames=2),
        replace(task, variables=("Z500", "T850", "U850")),
    ]
    identities = [dict(one.identity()) for one in (task, *changed)]
    assert all(identities.count(one) == 1 for one in identities)


def test_clips_counted_once_give_the_scores(task: Forecast) -> None:
    rows = random_rows(4)
    residuals = torch.zeros(1, *rows["future"].shape[1:])
    batches = [{name: values[clip : clip + 1] for name, values in rows.items()} for clip in range(4)]
    per_clip = task.join([task.per_clip(residuals, batch) for batch in batches])
    assert per_clip["squares"].shape == (4, LEADS, 3)
    assert task.scores(per_clip, np.ones(4)) == task.scores(per_clip)
    assert task.scores(per_clip)[task.score] > 0
    assert task.takes == "fields"


def persistence_of(task: Forecast, targets: Targets) -> float:
    return score_baselines(task, targets, targets, numbers(0, 1))["persistence"]["T850/rmwse"]


def test_rows_of_the_globe_are_weighted_as_they_always_were(
    task: Forecast, stepping: Targets, make_targets: MakeTargets
) -> None:
    rows = task.select(stepping, numbers(0, 1), numbers(0, 0), None)
    assert set(rows) == {"last", "future"}
    values = np.random.default_rng(0).normal(size=(7, ROWS, COLUMNS, 3))
    places = np.array([[0, 2, 4, 6], [1, 3, 5, 6]])
    south = fields_of(make_targets, values, places, "south")
    north = fields_of(make_targets, values[:, ::-1], places, "north", np.linspace(90, -90, ROWS))
    assert set(task.select(north, numbers(0), numbers(0), None)) == {"last", "future"}
    assert persistence_of(task, north) == pytest.approx(persistence_of(task, south), rel=1e-12)


def test_area_weights_are_of_the_latitudes_on_disk(task: Forecast, make_targets: MakeTargets) -> None:
    """A region, and rows in no order: the same errors at the same places have the same score."""
    values = np.random.default_rng(0).normal(size=(7, ROWS, COLUMNS, 3))
    places = np.array([[0, 2, 4, 6], [1, 3, 5, 6]])
    region = np.array([30.0, 40, 50, 60, 70])
    ordered = fields_of(make_targets, values, places, "region", region)
    order = np.array([3, 0, 4, 1, 2])
    shuffled = fields_of(make_targets, values[:, order], places, "shuffled", region[order])
    bands = np.diff(np.sin(np.radians([25, 35, 45, 55, 65, 75])))
    change = (values[places[:, 1:]] - values[places[:, :1]])[..., 1].astype(np.float32)
    by_row = (change**2).mean(axis=(0, 3)) @ (bands / bands.sum())
    assert persistence_of(task, ordered) == pytest.approx(float(np.sqrt(by_row).mean()), rel=1e-5)
    assert persistence_of(task, shuffled) == pytest.approx(persistence_of(task, ordered), rel=1e-6)
    globe = fields_of(make_targets, values, places, "globe")
    assert abs(persistence_of(task, globe) / persistence_of(task, ordered) - 1) > 0.01
    of = {"globe": globe, "region": ordered, "shuffled": shuffled}
    losses = {}
    for name, targets in of.items():
        selected = task.select(targets, numbers(0, 1), numbers(0, 0), None)
        rows = {key: torch.from_numpy(values) for key, values in selected.items()}
        losses[name] = float(task.loss(torch.zeros_like(rows["future"]), rows))
    assert losses["region"] == pytest.approx(losses["shuffled"], rel=1e-6)
    assert losses["region"] != pytest.approx(losses["globe"], rel=1e-3)
