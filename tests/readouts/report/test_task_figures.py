"""The pictures of each kind of task, from small made-up stores and predictions."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from featcache.clips import Clip, ClipIndex
from featcache.manifest import load_manifest
from featcache.store.target_writer import write_targets
from featcache.store.targets import TargetArray, Targets, open_targets
from readouts.report import figures
from readouts.report.task_figures import LEADS_SHOWN, VIDEOS_SHOWN, EvaluatedRun, figures_of, strip_frames
from readouts.results.baselines import score_baselines
from readouts.results.per_clip import write_predictions
from readouts.results.run_folder import RunFolder
from readouts.tasks import load_task
from readouts.tasks.base import Task
from readouts.tasks.forecast import Forecast
from readouts.tasks.regression import Regression

MakeScene = Callable[..., EvaluatedRun]
RNG = np.random.default_rng(0)


@pytest.fixture
def make_scene(tmp_path: Path) -> MakeScene:
    """The val split of a run: targets of any kind, predictions of some clips."""

    def make(
        task: Task,
        arrays: Mapping[str, np.ndarray | TargetArray],
        outputs: Mapping[str, np.ndarray],
        strips: Mapping[int, np.ndarray] | None = None,
    ) -> EvaluatedRun:
        n_clips = max(len(next(iter(outputs.values()))), 6)
        clips = ClipIndex.from_clips(
            Clip(id=f"clip {i}", source="s", record=i, n_source=16, digest="0" * 16) for i in range(n_clips)
        )
        targets = open_targets(write_targets(tmp_path / "targets", clips, arrays, {}))
        pictures = {
            number: jpeg(np.concatenate(list(strip), axis=1)) for number, strip in (strips or {}).items()
        }
        kept = np.arange(len(next(iter(outputs.values()))))
        return EvaluatedRun(
            row={},
            targets=targets,
            clips=kept,
            pictures=pictures,
            ids=[f"clip {i}" for i in kept],
            outputs=outputs,
            scores={kind: dict.fromkeys(keys_of(task, targets), 1.0) for kind in outputs},
            baselines=score_baselines(task, targets, targets, np.arange(2)),
        )

    return make


def keys_of(task: Task, targets: Targets) -> list[str]:
    """The names of all scores of a task."""
    (scores, *_) = score_baselines(task, targets, targets, np.arange(2)).values()
    return list(scores)


def jpeg(image: np.ndarray) -> bytes:
    held = BytesIO()
    Image.fromarray(image).save(held, "JPEG", quality=95)
    return held.getvalue()


def listening(monkeypatch: pytest.MonkeyPatch, name: str) -> list[dict[Any, Any]]:
    """What a function of `readouts.report.figures` is given, call by call; it draws as before."""
    calls: list[dict[Any, Any]] = []
    draw = getattr(figures, name)

    def listen(*args: Any, **named: Any) -> str:
        calls.append({**dict(enumerate(args)), **named})
        address: str = draw(*args, **named)
        return address

    monkeypatch.setattr(figures, name, listen)
    return calls


def require_whole(found: list[Any]) -> None:
    assert all(picture.image.startswith("data:image/") for picture in found)
    assert all(picture.title and picture.caption for picture in found)
    assert len({picture.title for picture in found}) == len(found)


def test_a_classification_shows_precision_and_recall(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task("calms21", load_manifest())
    labels = np.eye(4, dtype=np.uint8)[np.arange(6) % 4]
    drawn = listening(monkeypatch, "precision_recall")
    found = figures_of(task, make_scene(task, {"labels": labels}, {"linear": RNG.normal(size=(6, 4))}))
    require_whole(found)
    assert len(found) == 1
    np.testing.assert_array_equal(drawn[0][1], labels)
    assert drawn[0][2] == task.output_names


def surgery(n_clips: int) -> dict[str, np.ndarray]:
    """Two points of which one moves 128 pixels to the right, and a row of padding."""
    queries = np.tile(np.array([[0.2, 0.2], [0.6, 0.6], [-1, -1]], np.float32), (n_clips, 1, 1))
    ends = queries + np.array([[0, 0], [0.1, 0], [0, 0]], np.float32)
    mask = np.tile(np.array([True, True, False]), (n_clips, 1))
    return {"queries": queries, "ends": ends, "query_mask": mask, "end_mask": mask.copy()}


def test_tracking_shows_errors_and_a_few_videos(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task("stir", load_manifest())
    arrays = surgery(6)
    inside = np.clip(arrays["ends"][:5], 0.01, 0.99)
    outputs = np.zeros((5, 16, 3, 4), np.float32)
    outputs[..., :2] = np.log(inside / (1 - inside))[:, None]
    # Of clip 5 no prediction was kept.
    strips = {i: np.full((4, 32, 32, 3), 40 * i + 20, np.uint8) for i in (5, 0, 1, 2, 3)}
    histograms, videos = (listening(monkeypatch, name) for name in ("error_histogram", "end_points"))
    found = figures_of(task, make_scene(task, arrays, {"tracking": outputs}, strips))
    require_whole(found)
    assert len(found) == 1 + VIDEOS_SHOWN
    # Ten points, none of padding; the head is right, what does not move is right about half of them.
    (errors,), (unmoved,) = (tuple(of.values()) for of in (histograms[0][0], histograms[0][1]))
    np.testing.assert_array_equal(errors, np.zeros(10))
    np.testing.assert_array_equal(np.sort(unmoved), [0] * 5 + [128] * 5)
    assert [video[0].shape for video in videos] == [(32, 32, 3)] * VIDEOS_SHOWN
    assert [int(video[0].mean().round()) for video in videos] == [20, 60, 100]
    assert not any(picture.wide for picture in found)
    assert found[1].title == "Clip clip 0"
    assert videos[0]["valid_query"].tolist() == [True, True, False]


def test_tracking_of_known_tracks_shows_how_far_points_are_from_their_own_ends(make_scene: MakeScene) -> None:
    task = load_task("stir", load_manifest())
    tracks = np.full((6, 16, 4, 2), 0.5, np.float32)
    arrays = {"tracks": tracks, "visibility": np.ones((6, 16, 4), np.bool_)}
    scene = make_scene(task, arrays, {"tracking": np.zeros((6, 16, 4, 4), np.float32)})
    histogram, *_ = figures_of(task, scene)
    assert histogram.title == "How far predicted end points are from their own"


@pytest.mark.parametrize("n_clips", [2, 9])
def test_a_regression_shows_series_and_errors_by_lead(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch, n_clips: int
) -> None:
    task = load_task("typhoon", load_manifest())
    assert isinstance(task, Regression)
    series = (990.0 - np.arange(max(n_clips, 6) * 24).reshape(-1, 1, 24) / 10).astype(np.float32)
    panels, leads = (listening(monkeypatch, name) for name in ("pressure_panels", "rmse_by_lead"))
    outputs = {"linear": np.zeros((n_clips, 12), np.float32), "attention": np.ones((n_clips, 12), np.float32)}
    found = figures_of(task, make_scene(task, {"series": series}, outputs))
    require_whole(found)
    assert len(found) == 2
    past, future, predicted, ids = (panels[0][i] for i in range(4))
    few = [int(name.split()[-1]) for name in ids]
    assert few[0] == 0
    assert few[-1] == n_clips - 1
    assert len(set(few)) == min(6, n_clips)
    np.testing.assert_array_equal(np.concatenate([past, future], axis=1), series[few, 0])
    np.testing.assert_allclose(predicted["attention"] - predicted["linear"], 1.0, rtol=1e-4)
    np.testing.assert_allclose(predicted["linear"], task.offset, rtol=1e-6)
    assert set(leads[0]["baselines"]) == {"last input value", "training mean"}
    assert list(leads[0][1]) == list(range(1, 13))


def test_a_forecast_shows_a_map_and_a_curve_a_variable(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    weather = load_task("weatherbench2", load_manifest())
    assert isinstance(weather, Forecast)
    task = replace(weather, rows=7, columns=12, n_frames=6)
    fields = np.add([54000, 270, 0.003], RNG.normal(size=(9, 7, 12, 3))).astype(np.float32)
    places = (np.arange(2)[:, None] + np.arange(8)).astype("<i4")
    arrays: dict[str, np.ndarray | TargetArray] = {
        "fields": TargetArray(
            shape=fields.shape,
            dtype=fields.dtype,
            axes=("time", "row", "column", "variable"),
            blocks=[fields],
        ),
        "places": np.concatenate([places, places, places]),
        "latitude": TargetArray(
            shape=(7,), dtype=np.dtype("<f4"), axes=("row",), blocks=[np.linspace(90, -90, 7, dtype="<f4")]
        ),
        "longitude": TargetArray(
            shape=(12,), dtype=np.dtype("<f4"), axes=("column",), blocks=[np.arange(0, 360, 30, dtype="<f4")]
        ),
    }
    maps, curves = (listening(monkeypatch, name) for name in ("forecast_maps", "rmse_by_lead"))
    found = figures_of(task, make_scene(task, arrays, {"dpt": np.zeros((2, 6, 7, 12, 3), np.float32)}))
    require_whole(found)
    assert [picture.wide for picture in found] == [False] * 3 + [True] * 3
    assert [(one["variable"], one["unit"]) for one in maps] == [
        ("Z500", "m2/s2"), ("T850", "K"), ("Q700", "g/kg")
    ]  # fmt: skip
    assert maps[0]["leads"] == [lead for lead in LEADS_SHOWN if lead < 6]
    assert maps[0]["hours"][:3] == [12, 24, 36]
    # No residual is persistence; humidity is shown in g/kg.
    last, predicted, truth = (maps[2][i] for i in range(3))
    np.testing.assert_allclose(last, 1000 * fields[0, ..., 2], rtol=1e-6)
    np.testing.assert_allclose(predicted, np.broadcast_to(last, predicted.shape))
    np.testing.assert_allclose(truth, 1000 * fields[1:7, ..., 2], rtol=1e-6)
    assert [set(one["baselines"]) for one in curves] == [{"persistence"}] * 3
    np.testing.assert_allclose(curves[2][0]["dpt"], 1000.0)


def test_a_task_from_a_file_shows_nothing(make_scene: MakeScene) -> None:
    task = load_task("calms21", load_manifest())
    labels = np.eye(4, dtype=np.uint8)[np.arange(6) % 4]
    scene = make_scene(task, {"labels": labels}, {"linear": np.zeros((6, 4), np.float32)})
    assert figures_of(SimpleNamespace(name="own"), scene) == []


def test_a_strip_is_taken_apart_into_its_frames() -> None:
    frames = np.stack([np.full((24, 24, 3), value, np.uint8) for value in (10, 120, 240)])
    found = strip_frames(jpeg(np.concatenate(list(frames), axis=1)))
    assert found.shape == frames.shape
    assert (abs(found.astype(int) - frames) < 4).all()


def test_a_scene_is_read_from_what_a_run_left(make_scene: MakeScene, tmp_path: Path) -> None:
    task = load_task("calms21", load_manifest())
    labels = np.eye(4, dtype=np.uint8)[np.arange(6) % 4]
    made = make_scene(task, {"labels": labels}, {"linear": np.zeros((6, 4), np.float32)})
    values = RNG.normal(size=(2, 4)).astype(np.float32)
    folder = RunFolder(tmp_path / "results" / "calms21" / "toy-abc")
    write_predictions(folder, "val", np.array([3, 5]), pa.chunked_array([["x", "y"]]), {"linear": values})
    row = {
        "task": "calms21", "backbone": "toy", "run": "abc", "readout": "linear",
        "scores": '{"val": {"mean_AP": 0.5}}',
    }  # fmt: skip
    scene = EvaluatedRun.of([row], made.targets, {5: b"jpeg"}, made.baselines, tmp_path / "results")
    assert scene.clips.tolist() == [3, 5]
    assert scene.ids == ["x", "y"]
    assert scene.pictured == [(1, b"jpeg")]
    np.testing.assert_array_equal(scene.outputs["linear"], values)
    assert scene.scores == {"linear": {"mean_AP": 0.5}}
