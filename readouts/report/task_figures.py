"""The pictures a task's report shows: from saved predictions and targets to `readouts.report.figures`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from PIL import Image

from featcache.store.feature_store import FeatureStore
from featcache.store.targets import CLIP_UNITS, Targets
from readouts.heads.tracking import as_tracks
from readouts.metrics.tracking import nearest_endpoint_error
from readouts.report import figures
from readouts.results.predictions import read_predictions
from readouts.results.run_folder import RunFolder
from readouts.tasks.classification import Classification
from readouts.tasks.forecast import Forecast
from readouts.tasks.regression import Regression
from readouts.tasks.tracking import Tracking

Outputs = Mapping[str, Float[np.ndarray, "n *O"]]

STIR_ASPECT = 1280 / 1024
"""Width over height of the surgical frames before they were squashed."""

UNITS = {"Z500": ("m2/s2", 1.0), "T850": ("K", 1.0), "Q700": ("g/kg", 1000.0)}
"""Unit a variable is shown in, and what its stored value is multiplied with."""

VIDEOS_SHOWN, STORMS_SHOWN, LEADS_SHOWN = 3, 6, (0, 5, 15)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One figure of the page."""

    title: str
    caption: str
    image: str
    """A `data:` address."""
    wide: bool = False
    """Whether it scrolls on a telephone rather than shrinking."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What there is to draw a run from: one evaluated split."""

    row: Mapping[str, Any]
    """Of the results table."""
    store: FeatureStore
    targets: Targets
    clips: Int64[np.ndarray, " n"]
    """Whose predictions were kept."""
    ids: Sequence[str]
    outputs: Outputs
    """Of each readout of the run."""
    scores: Mapping[str, Mapping[str, float]]
    """Of each readout of the run, on val."""
    baselines: Mapping[str, Mapping[str, float]]
    """Name of each baseline -> its scores."""

    @classmethod
    def of(
        cls,
        rows: Sequence[Mapping[str, Any]],
        store: FeatureStore,
        targets: Targets,
        baselines: Mapping[str, Mapping[str, float]],
        results_dir: Path,
    ) -> "Scene":
        """The val split of the run that `rows` are of.

        Raises:
            StoreError: the predictions cannot be read.
        """
        row = rows[0]
        table, outputs = read_predictions(RunFolder.of(results_dir, row).predictions("val"))
        return cls(
            row=row,
            store=store,
            targets=targets,
            clips=np.asarray(table.column("clip"), np.int64),
            ids=table.column("id").cast(pa.string()).to_pylist(),
            outputs=outputs,
            scores={r["readout"]: json.loads(r["scores"])["val"] for r in rows},
            baselines=baselines,
        )

    def name_of(self, row: int) -> str:
        """A clip as people know it: by its sequence or video where the data say which, else by its id."""
        for unit in CLIP_UNITS:
            if unit in self.targets:
                return f"{unit} {self.targets.rows(unit, self.clips[row : row + 1])[0]}"
        return f"clip {self.ids[row]}"


@singledispatch
def pictures_of(task: object, scene: Scene) -> list[Picture]:
    """The figures of a task's best run; none for a task that nobody has drawn yet."""
    return []


@pictures_of.register
def _(task: Classification, scene: Scene) -> list[Picture]:
    labels = scene.targets.rows("labels", scene.clips)
    return [
        Picture(
            title="Precision and recall, a class at a time",
            caption="All clips of val. Dotted: the share of clips with the class, as chance would have it.",
            image=figures.precision_recall(scene.outputs, labels, task.output_names),
        )
    ]


@pictures_of.register
def _(task: Tracking, scene: Scene) -> list[Picture]:
    (kind, outputs), *_ = scene.outputs.items()
    chosen = task.select(scene.targets, scene.clips, np.zeros_like(scene.clips), None)
    if "ends" not in chosen:
        return []
    predicted = as_tracks(torch.from_numpy(outputs)).points.numpy()
    asked, marked = chosen["query_mask"][..., 0].astype(bool), chosen["end_mask"][..., 0].astype(bool)
    errors = _pixel_errors(predicted[:, -1], chosen, asked, marked)
    unmoved = _pixel_errors(chosen["queries"], chosen, asked, marked)
    histogram = Picture(
        title="How far predicted end points are from the nearest true one",
        caption="Pixels at 1280 x 1024, all points of val.",
        image=figures.error_histogram({kind: errors}, {"points do not move": unmoved}),
    )
    return [histogram, *_videos(scene, predicted, chosen, asked, marked)]


def _pixel_errors(
    points: Float[np.ndarray, "B Q 2"],
    chosen: Mapping[str, np.ndarray],
    asked: np.ndarray,
    marked: np.ndarray,
) -> Float[np.ndarray, " n"]:
    errors = nearest_endpoint_error(
        torch.from_numpy(points),
        torch.from_numpy(chosen["ends"]),
        query_mask=torch.from_numpy(asked),
        target_mask=torch.from_numpy(marked),
    )
    found: np.ndarray = errors.numpy()[asked]
    return found


def _videos(
    scene: Scene,
    predicted: Float[np.ndarray, "B F Q 2"],
    chosen: Mapping[str, np.ndarray],
    asked: np.ndarray,
    marked: np.ndarray,
) -> list[Picture]:
    place = {int(clip): row for row, clip in enumerate(scene.clips)}
    strips = [(clip, strip) for clip, strip in scene.store.previews().items() if clip in place]
    shown = []
    for clip, strip in strips[:VIDEOS_SHOWN]:
        row, frames = place[clip], strip_frames(strip)
        image = figures.end_points(
            frames[0], frames[-1], chosen["queries"][row], predicted[row], chosen["ends"][row],
            valid_query=asked[row], valid_end=marked[row], aspect=STIR_ASPECT,
        )  # fmt: skip
        caption = (
            "First and last frame. Lines: predicted paths; filled: where they end; rings: true end points."
        )
        shown.append(Picture(title=scene.name_of(row).capitalize(), caption=caption, image=image))
    return shown


def strip_frames(strip: bytes) -> UInt8[np.ndarray, "n Y X rgb"]:
    """The square frames of a contact strip."""
    image = np.asarray(Image.open(BytesIO(strip)).convert("RGB"))
    return rearrange(image, "y (n x) c -> n y x c", x=image.shape[0])


@pictures_of.register
def _(task: Regression, scene: Scene) -> list[Picture]:
    few = np.linspace(0, len(scene.clips) - 1, min(STORMS_SHOWN, len(scene.clips))).round().astype(int)
    chosen = task.select(scene.targets, scene.clips[few], np.zeros_like(few), None)
    predictions = {kind: outputs[few] + task.offset for kind, outputs in scene.outputs.items()}
    storms = figures.pressure_panels(
        chosen["past"], chosen["future"], predictions, [scene.name_of(i) for i in few.tolist()]
    )
    keys = [f"pressure/t={lead}/rmse" for lead in range(task.n_outputs)]
    by_lead = figures.rmse_by_lead(
        {kind: _series(scores, keys) for kind, scores in scene.scores.items()},
        range(1, task.n_outputs + 1),
        unit="hPa",
        title="Central pressure",
        baselines={name: _series(scores, keys) for name, scores in scene.baselines.items()},
    )
    return [
        Picture(
            title="Pressure against time",
            caption="Hours from the last frame that the model saw. It sees images, never a pressure.",
            image=storms,
        ),
        Picture(title="Error against lead time", caption="All sequences of val.", image=by_lead),
    ]


@pictures_of.register
def _(task: Forecast, scene: Scene) -> list[Picture]:
    leads = [lead for lead in LEADS_SHOWN if lead < task.n_frames]
    hours = [task.step_hours * (lead + 1) for lead in range(task.n_frames)]
    (kind, outputs), *_ = scene.outputs.items()
    first = scene.clips[:1]
    chosen = task.select(scene.targets, first, np.zeros_like(first), None)
    last = torch.from_numpy(chosen["last"])
    predicted = task.predicted(torch.from_numpy(outputs[:1]), last).numpy()[0]
    latitude, longitude = (scene.targets.read(name) for name in ("latitude", "longitude"))
    shown = []
    for i, variable in enumerate(task.variables):
        unit, factor = UNITS.get(variable, ("", 1.0))
        fields = (factor * values[..., i] for values in (chosen["last"][0], predicted, chosen["future"][0]))
        maps = figures.forecast_maps(
            *fields,
            variable=variable,
            unit=unit,
            latitude=latitude,
            longitude=longitude,
            leads=leads,
            hours=hours,
        )
        caption = f"One forecast of {kind}, from {scene.ids[0]} on (first input frame)."
        shown.append(
            Picture(title=f"{variable}: truth, forecast, errors", caption=caption, image=maps, wide=True)
        )
    return [*_errors_by_lead(task, scene, hours), *shown]


def _errors_by_lead(task: Forecast, scene: Scene, hours: Sequence[int]) -> list[Picture]:
    shown = []
    for variable in task.variables:
        unit, factor = UNITS.get(variable, ("", 1.0))
        keys = [f"{variable}/t={lead}/rmwse" for lead in range(task.n_frames)]
        image = figures.rmse_by_lead(
            {kind: factor * _series(scores, keys) for kind, scores in scene.scores.items()},
            hours,
            unit=unit,
            title=variable,
            baselines={name: factor * _series(scores, keys) for name, scores in scene.baselines.items()},
        )
        caption = "Area-weighted, all windows of val."
        shown.append(Picture(title=f"{variable}: error against lead time", caption=caption, image=image))
    return shown


def _series(scores: Mapping[str, float], keys: Sequence[str]) -> Float[np.ndarray, " T"]:
    return np.array([scores[key] for key in keys])
