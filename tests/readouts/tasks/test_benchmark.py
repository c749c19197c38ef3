"""Tasks by name and by kind: the benchmark's settings are the reference's, a manifest's own need no code."""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import CallError
from featcache.manifest import load_manifest
from readouts.tasks import KINDS, load_task
from readouts.tasks.base import Recipe, Task
from readouts.tasks.benchmark import SETTINGS
from readouts.tasks.forecast import Forecast
from readouts.tasks.regression import Regression
from readouts.tasks.tracking import Tracking

CONFIGS = {
    "flyvsfly": "flyvsfly_classification",
    "calms21": "calms21_classification",
    "stir": "stir_2d_tracking",
    "typhoon": "typhoon_future_pred",
    "weatherbench2": "weatherbench_future_pred",
}
"""Name of a task here -> its launch configuration of the reference."""

OWN = """
datasets:
  ants: {title: A, source: s, licence: l, citation: c, version: "1", reader: video_file,
         splits: {all: {files: "*.mp4"}}}
  ocean: {title: O, source: s, licence: l, citation: c, version: "1", reader: weather_zarr, channels: 3,
          frame_size: [19, 36], variables: [temperature_850, specific_humidity_700, geopotential_500],
          splits: {all: {files: o.zarr, windows: {first: "2017", last: "2017", n_frames: 20, step_hours: 24,
                                                  every_hours: 24}}}}
tasks:
  ants: {title: A, kind: tracking, splits: {train: ants/all, val: ants/all},
         clip: {n_frames: 8, height: 128, width: 128}}
  tides: {title: T, kind: regression, splits: {train: digital_typhoon/train, val: digital_typhoon/val},
          clip: {n_frames: 6}, starts: {rule: window, span: 10, n_starts: 3}}
  ocean: {title: O, kind: forecast, splits: {train: ocean/all, val: ocean/all}, clip: {n_frames: 16}}
  odd: {title: F, kind: features, splits: {all: ants/all}}
"""


@pytest.fixture(params=CONFIGS)
def launched(request: pytest.FixtureRequest, shared: Path) -> tuple[Task, dict[str, Any]]:
    """A task, and the reference's resolved configuration of it."""
    file = shared / "golden" / "reference" / "launch_configs.json"
    config = json.loads(file.read_text())[CONFIGS[request.param]]
    return load_task(request.param, load_manifest()), config


def number(name: str, text: str) -> float:
    """The one number that `name` is given in a printed configuration."""
    (found,) = set(re.findall(rf"\b{name}=([-+.e\d]+)", text))
    return float(found)


def test_recipes_are_the_references(launched: tuple[Task, dict[str, Any]]) -> None:
    task, config = launched
    recipe = task.recipe
    assert (recipe.steps, recipe.lr) == (config["num_train_steps"], config["lr"])
    assert (recipe.weight_decay, recipe.clip_update) == (config["weight_decay"], config["grad_clip"])
    assert recipe.batch == number("batch_size", config["train_ds_resolved"])
    assert recipe.minival_every == config["eval_interval_steps"]
    assert recipe.val_every == config["long_eval_interval_steps"]


def test_heads_are_the_references(launched: tuple[Task, dict[str, Any]]) -> None:
    task, config = launched
    model = config["model"]
    ours = {kind: task.head_config(kind) for kind in task.readouts}
    assert set(ours) == {
        kind
        for kind, there in (
            ("linear", "LinearReadout(" in model),
            ("attention", "AttentionReadout(" in model and "TrackingReadout" not in model),
            ("tracking", "TrackingReadoutWrapper(" in model),
            ("dpt", "DPTReadout(" in model),
        )
        if there
    }
    for kind in ours.keys() & {"attention", "tracking"}:
        assert ours[kind]["width"] == number("num_params", model)
        assert ours[kind]["heads"] == number("num_heads", model)
        dropout = number("dropout_rate", model) if "dropout_rate" in model else 0.0
        assert ours[kind].get("dropout", 0.0) == dropout
    if "dpt" in ours:
        (widths,) = re.findall(r"dpt_feature_dims=\(([^)]*)\)", model)
        assert {int(width) for width in widths.split(",")} == {ours["dpt"]["features"]}
        assert ours["dpt"]["head_channels"] == number("dpt_intermediate_channels", model)


def test_every_task_of_the_benchmark_meets_the_contract() -> None:
    manifest = load_manifest()
    assert set(SETTINGS) <= {(name, task.kind) for name, task in manifest.tasks.items()}
    for name in manifest.tasks:
        task = load_task(name, manifest)
        assert isinstance(task, Task)
        assert (task.name, task.spec) == (name, name)
        assert len(task.output_names) > 0
        json.dumps(dict(task.identity()))


def test_every_kind_has_something_to_be_made_of() -> None:
    assert set(KINDS) == {task.kind for task in load_manifest().tasks.values()}
    for place in KINDS.values():
        module, _, name = place.partition(":")
        assert callable(getattr(import_module(module), name).of)


def test_a_manifests_own_tasks_need_no_code(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(OWN)
    manifest = load_manifest(file)
    ants, tides, ocean = (load_task(name, manifest) for name in ("ants", "tides", "ocean"))
    assert isinstance(ants, Tracking)
    assert (ants.name, ants.spec, ants.n_frames, ants.rows) == ("ants", "ants", 8, 128)
    assert ants.head_config("tracking")["n_frames"] == 8
    assert ants.recipe == Recipe()
    assert isinstance(tides, Regression)
    assert (tides.n_inputs, tides.n_outputs, tides.output_names) == (6, 4, ("+1 h", "+2 h", "+3 h", "+4 h"))
    assert isinstance(ocean, Forecast)
    assert (ocean.rows, ocean.columns, ocean.n_frames, ocean.n_outputs) == (19, 36, 4, 12)
    assert ocean.variables == ("T850", "Q700", "Z500")
    assert ocean.score == "T850/rmwse"
    assert ocean.residual_std == (2.457512144662011, 0.0012086132599619071, 404.18805465281133)
    assert (ocean.step_hours, tides.offset) == (24, 0.0)
    dpt = {"n_frames": 4, "n_variables": 3, "out_rows": 19, "out_columns": 36}
    assert dpt.items() <= ocean.head_config("dpt").items()


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(OWN)
    with pytest.raises(CallError, match="task odd is of kind 'features', which has no readout to train"):
        load_task("odd", load_manifest(file))
    with pytest.raises(CallError, match="moths"):
        load_task("moths", load_manifest(file))
