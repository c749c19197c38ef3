"""The figures of a task: from saved predictions and targets to `readouts.report.figures`."""

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

from featcache.store.targets import CLIP_UNITS, Targets
from readouts.features.draws import evenly
from readouts.heads.tracking import as_tracks
from readouts.metrics.tracking import nearest_endpoint_error
from readouts.report import figures
from readouts.report.figures import PageFigure
from readouts.results.per_clip import read_predictions
from readouts.results.run_folder import RunFolder
from readouts.tasks.classification import Classification
from readouts.tasks.forecast import Forecast
from readouts.tasks.regression import Regression
from readouts.tasks.tracking import Tracking
from readouts.tasks.values import ShownValues

Outputs = Mapping[str, Float[np.ndarray, "n *O"]]

STIR_ASPECT = 1280 / 1024
"""Width over height of the surgical frames before they were squashed."""

UNITS = {"Z500": ("m2/s2", 1.0), "T850": ("K", 1.0), "Q700": ("g/kg", 1000.0)}
"""Unit a variable is shown in, and what its stored value is multiplied with."""

VIDEOS_SHOWN, STORMS_SHOWN, LEADS_SHOWN = 3, 6, (0, 5, 15)


@dataclass(frozen=True, kw_only=True)
class EvaluatedRun:
    """One run on val: what it predicted, what was true, and how its readouts were scored."""

    row: Mapping[str, Any]
    """The row of one of its readouts, in the results table."""
    targets: Targets
    clips: Int64[np.ndarray, " n"]
    """The clips whose predictions were kept."""
    pictures: Mapping[int, bytes]
    """Clip number -> its JPEG strip, of a few clips of the split."""
    ids: Sequence[str]
    outputs: Outputs
    """Readout -> its outputs, a row for each of `clips`."""
    scores: Mapping[str, Mapping[str, float]]
    """Readout -> its scores."""
    baselines: Mapping[str, Mapping[str, float]]
    """Name of each baseline -> its scores."""

    @classmethod
    def of(
        cls,
        rows: Sequence[Mapping[str, Any]],
        targets: Targets,
        pictures: Mapping[int, bytes],
        baselines: Mapping[str, Mapping[str, float]],
        results_dir: Path,
    ) -> "EvaluatedRun":
        """The run that `rows` are of, on val.

        Raises:
            StoreError: the predictions cannot be read.
        """
        row = rows[0]
        table, outputs = read_predictions(RunFolder.of(results_dir, row), "val")
        return cls(
            row=row,
            targets=targets,
            clips=np.asarray(table.column("clip"), np.int64),
            pictures=pictures,
            ids=table.column("id").cast(pa.string()).to_pylist(),
            outputs=outputs,
            scores={r["readout"]: json.loads(r["scores"])["val"] for r in rows},
            baselines=baselines,
        )

    @property
    def pictured(self) -> list[tuple[int, bytes]]:
        """Position among `clips`, and the picture, of those that have one."""
        positions = {clip: i for i, clip in enumerate(self.clips.tolist())}
        return [(positions[clip], frames) for clip, frames in self.pictures.items() if clip in positions]

    def name_of(self, index: int) -> str:
        """A clip as people know it: by its sequence or video where the data say which, else by its id."""
        for unit in CLIP_UNITS:
            if unit in self.targets:
                return f"{unit} {self.targets.rows(unit, self.clips[index : index + 1])[0]}"
        return f"clip {self.ids[index]}"


@singledispatch
def figures_of(task: object, run: EvaluatedRun) -> list[PageFigure]:
    """The figures of a task's best run; none for a task that nobody has drawn yet."""
    return []


@figures_of.register
def _(task: Classification, run: EvaluatedRun) -> list[PageFigure]:
    labels = run.targets.rows("labels", run.clips)
    return [
        PageFigure(
            title="Precision and recall, a class at a time",
            caption="All clips of val. Dotted: the share of clips with the class, as chance would have it.",
            image=figures.precision_recall(run.outputs, labels, task.output_names),
        )
    ]


@figures_of.register
def _(task: Tracking, run: EvaluatedRun) -> list[PageFigure]:
    (kind, outputs), *_ = run.outputs.items()
    chosen = task.select(run.targets, run.clips, np.zeros_like(run.clips), None)
    if matched := "ends" not in chosen:
        seen = chosen["target_mask"][:, -1]
        chosen |= {"ends": chosen["coords"][:, -1], "query_mask": seen, "end_mask": seen}
    predicted = as_tracks(torch.from_numpy(outputs)).points.numpy()
    asked, marked = chosen["query_mask"][..., 0].astype(bool), chosen["end_mask"][..., 0].astype(bool)
    errors = _pixel_errors(predicted[:, -1], chosen, asked, marked, matched)
    unmoved = _pixel_errors(chosen["queries"], chosen, asked, marked, matched)
    histogram = PageFigure(
        title=f"How far predicted end points are from {'their own' if matched else 'the nearest true one'}",
        caption="Pixels at 1280 x 1024, all points of val.",
        image=figures.error_histogram({kind: errors}, {"points do not move": unmoved}),
    )
    aspect = None if matched else STIR_ASPECT
    return [histogram, *_videos(run, predicted, chosen, asked, marked, aspect)]


def _pixel_errors(
    points: Float[np.ndarray, "B Q 2"],
    chosen: Mapping[str, np.ndarray],
    asked: np.ndarray,
    marked: np.ndarray,
    matched: bool,
) -> Float[np.ndarray, " n"]:
    errors = nearest_endpoint_error(
        torch.from_numpy(points),
        torch.from_numpy(chosen["ends"]),
        query_mask=torch.from_numpy(asked),
        target_mask=torch.from_numpy(marked),
        matched=matched,
    )
    found: np.ndarray = errors.numpy()[asked]
    return found


def _videos(
    run: EvaluatedRun,
    predicted: Float[np.ndarray, "B F Q 2"],
    chosen: Mapping[str, np.ndarray],
    asked: np.ndarray,
    marked: np.ndarray,
    aspect: float | None,
) -> list[PageFigure]:
    shown = []
    for index, strip in run.pictured[:VIDEOS_SHOWN]:
        frames = strip_frames(strip)
        image = figures.end_points(
            frames[0], frames[-1], chosen["queries"][index], predicted[index], chosen["ends"][index],
            valid_query=asked[index], valid_end=marked[index], aspect=aspect,
        )  # fmt: skip
        caption = (
            "First and last frame. Lines: predicted paths; filled: where they end; rings: true end points."
        )
        shown.append(PageFigure(title=run.name_of(index).capitalize(), caption=caption, image=image))
    return shown


def strip_frames(strip: bytes) -> UInt8[np.ndarray, "n Y X rgb"]:
    """The square frames of a contact strip."""
    image = np.asarray(Image.open(BytesIO(strip)).convert("RGB"))
    return rearrange(image, "y (n x) c -> n y x c", x=image.shape[0])


@figures_of.register
def _(task: Regression, run: EvaluatedRun) -> list[PageFigure]:
    few = evenly(len(run.clips), STORMS_SHOWN)
    chosen = task.select(run.targets, run.clips[few], np.zeros_like(few), None)
    predictions = {kind: outputs[few] + task.offset for kind, outputs in run.outputs.items()}
    storms = figures.pressure_panels(
        chosen["past"], chosen["future"], predictions, [run.name_of(i) for i in few.tolist()]
    )
    keys = [f"pressure/t={lead}/rmse" for lead in range(task.n_outputs)]
    by_lead = figures.rmse_by_lead(
        {kind: _series(scores, keys) for kind, scores in run.scores.items()},
        range(1, task.n_outputs + 1),
        unit="hPa",
        title="Central pressure",
        baselines={name: _series(scores, keys) for name, scores in run.baselines.items()},
    )
    return [
        PageFigure(
            title="Pressure against time",
            caption="Hours from the last frame that the model saw. It sees images, never a pressure.",
            image=storms,
        ),
        PageFigure(title="Error against lead time", caption="All sequences of val.", image=by_lead),
    ]


@figures_of.register
def _(task: ShownValues, run: EvaluatedRun) -> list[PageFigure]:
    chosen = task.select(run.targets, run.clips, np.zeros_like(run.clips), None)
    known = chosen["known"].astype(bool)
    predicted = {kind: task.predicted(torch.from_numpy(o)).numpy()[known] for kind, o in run.outputs.items()}
    return [
        PageFigure(
            title=f"{task.quantity.capitalize()}: predicted against true",
            caption="All known values of val; on the line they are equal.",
            image=figures.predicted_against_true(
                predicted, chosen["values"][known], quantity=task.quantity, unit=task.unit
            ),
        )
    ]


@figures_of.register
def _(task: Forecast, run: EvaluatedRun) -> list[PageFigure]:
    leads = [lead for lead in LEADS_SHOWN if lead < task.n_frames]
    hours = [task.step_hours * (lead + 1) for lead in range(task.n_frames)]
    (kind, outputs), *_ = run.outputs.items()
    first = run.clips[:1]
    chosen = task.select(run.targets, first, np.zeros_like(first), None)
    last = torch.from_numpy(chosen["last"])
    predicted = task.predicted(torch.from_numpy(outputs[:1]), last).numpy()[0]
    latitude, longitude = (run.targets.read(name) for name in ("latitude", "longitude"))
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
        caption = f"One forecast of {kind}, from {run.ids[0]} on (first input frame)."
        shown.append(
            PageFigure(title=f"{variable}: truth, forecast, errors", caption=caption, image=maps, wide=True)
        )
    return [*_errors_by_lead(task, run, hours), *shown]


def _errors_by_lead(task: Forecast, run: EvaluatedRun, hours: Sequence[int]) -> list[PageFigure]:
    shown = []
    for variable in task.variables:
        unit, factor = UNITS.get(variable, ("", 1.0))
        keys = [f"{variable}/t={lead}/rmwse" for lead in range(task.n_frames)]
        image = figures.rmse_by_lead(
            {kind: factor * _series(scores, keys) for kind, scores in run.scores.items()},
            hours,
            unit=unit,
            title=variable,
            baselines={name: factor * _series(scores, keys) for name, scores in run.baselines.items()},
        )
        caption = "Area-weighted, all windows of val."
        shown.append(PageFigure(title=f"{variable}: error against lead time", caption=caption, image=image))
    return shown


def _series(scores: Mapping[str, float], keys: Sequence[str]) -> Float[np.ndarray, " T"]:
    return np.array([scores[key] for key in keys])
