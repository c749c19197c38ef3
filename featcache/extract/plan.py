"""What an extraction will cost, and whether it pays, before anything is opened: arithmetic alone.

Features fill disks: the largest model on the largest split takes terabytes. The sizes are those of the code
that writes, asked for the same shapes; time follows from operations a clip and a speed that is stated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch

from featcache.backbones.base import BackboneInfo
from featcache.data.previews import FRAMES_PER_STRIP, STRIP_HEIGHT, TRACKED_HEIGHT, preview_clips
from featcache.data.readers import split_status
from featcache.errors import CallError
from featcache.extract.job import Extraction, feature_spec, store_bytes
from featcache.extract.shared_frames import fewest_known
from featcache.extract.targets.base import Arrays
from featcache.extract.targets.builders import planned_targets
from featcache.spec import Layer
from featcache.store.spec import TARGET_SHARD_BYTES, FeatureSpec
from featcache.store.target_writer import stored_bytes
from featcache.system.device import SUSTAINED_TFLOPS
from featcache.system.files import size

STEPS_PER_SECOND = 10.0
"""Training steps of a readout, of which 40,000 take an hour and seven minutes so."""

JPEG_BYTES_PER_PIXEL = 0.15
INDEX_BYTES_PER_CLIP = 80
"""Size of a row in the store's clip table and in the kept clip index, both compressed."""
FRAME_TABLE_FILES = 2
"""The table of distinct frames, and what it says of itself."""

METADATA_BYTES = 16_000
"""The zarr.json of group and arrays, of features and targets, and the log of runs."""

Row = dict[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """How fast the model runs: measured, or so many operations a second."""

    tflops: float = SUSTAINED_TFLOPS
    """10^12 operations a second, sustained."""
    clips_per_second: float | None = None
    """Measured, of this backbone: goes before `tflops`."""

    def __post_init__(self) -> None:
        if self.tflops <= 0 or (self.clips_per_second is not None and self.clips_per_second <= 0):
            raise CallError(f"a speed of {self.clips_per_second or self.tflops} must be above 0.")

    def seconds_a_clip(self, info: BackboneInfo, layers: Sequence[Layer]) -> float | None:
        """Time of a pass up to the deepest layer; None where nobody counted the model's operations."""
        if self.clips_per_second is not None:
            return 1 / self.clips_per_second
        if not info.gflop:  # nor is a model without any what its time goes to
            return None
        deepest = max(layer.block for layer in layers)
        return info.gflop * (deepest / info.n_blocks if info.n_blocks else 1.0) / 1e3 / self.tflops

    def __str__(self) -> str:
        if self.clips_per_second is not None:
            return f"{self.clips_per_second:g} clips a second, as given"
        whose = (
            "a fifth of an H100's data sheet in bfloat16" if self.tflops == SUSTAINED_TFLOPS else "as given"
        )
        return f"{self.tflops:g} TFLOP/s ({whose}), an assumption: measure, and give --clips-per-second"


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One readout, as far as it reads the cache."""

    steps: int = 40_000
    batch: int = 32
    steps_per_second: float = STEPS_PER_SECOND

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.steps_per_second) <= 0:
            raise CallError(f"{self}: steps, batch and steps a second must be above 0.")

    @property
    def draws(self) -> int:
        """Clips it is trained on, repeats counted: as often an online pipeline runs the backbone."""
        return self.steps * self.batch


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPlan:
    """What one split takes; numbers are None where nobody knows how many clips it has."""

    role: str
    n_views: int
    n_clips: int | None
    feature_bytes: int | None = None
    """Size of the store's shards."""
    target_bytes: int | None = None
    """0 for a task without targets."""
    other_bytes: int | None = None
    """Estimate of clip table, clip index, contact strips, and metadata."""
    n_files: int | None = None
    """Shard files of all layers."""
    n_shards: int | None = None
    """Pieces that workers take, each with all layers."""
    n_others: int | None = None
    """Files beside the shards: what store and targets say of themselves, clip table, strips, log, targets."""
    shard_passes: int = 0
    """Clips that the model is given for a full shard."""
    chunks_a_clip: int = 1
    """Pieces that one view of a clip is read in: one, or a frame each."""
    passes: int | None = None
    """Clips that the model is given: one for each clip and view, or as many as the distinct frames fill."""
    may_share: bool = False
    """Whether it takes less where clips share frames, which only the files can tell."""

    @property
    def n_bytes(self) -> int | None:
        """Size of all files of the split."""
        if self.feature_bytes is None:
            return None
        return self.feature_bytes + (self.target_bytes or 0) + (self.other_bytes or 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What it takes to extract some splits of a task with one backbone, and to train from them."""

    task: str
    backbone: str
    layers: tuple[str, ...]
    dtype: str
    splits: tuple[SplitPlan, ...]
    clip_bytes: int
    """One clip and view of one layer, as a readout reads it."""
    arrays_a_layer: int
    """Tokens; of int8 their scales beside them."""
    weight_bytes: int
    """On the device, in `precision`; activations come on top."""
    precision: str
    host_bytes: int
    """Memory of the two shards that are filled and written at a time; of a third where the disk is behind."""
    seconds_a_clip: float | None
    speed: Speed
    training: Training

    @property
    def n_bytes(self) -> int:
        """On disk, of the splits whose clips are counted."""
        return sum(split.n_bytes or 0 for split in self.splits)

    @property
    def device_hours(self) -> float | None:
        """Time of the model alone, for the splits whose clips are counted."""
        return self._hours(sum(split.passes or 0 for split in self.splits))

    @property
    def online_hours(self) -> float | None:
        """Time of the model where it runs in every step of one readout."""
        return self._hours(self.training.draws)

    @property
    def read_rate(self) -> float:
        """Bytes a second that a readout reads."""
        return self.clip_bytes * self.training.batch * self.training.steps_per_second

    @property
    def break_even(self) -> float | None:
        """Readouts after which extracting the training split cost less than the model in every step.

        Evaluation splits cost the same either way: the model sees each of their clips at least once.
        """
        passes = {split.role: split.passes for split in self.splits}.get("train")
        return None if passes is None else passes / self.training.draws

    def rows(self) -> list[Row]:
        """A row a split and one for all, for `featcache.system.console.show_table`."""
        rows = [_row(split, self._hours(split.passes)) for split in self.splits]
        counted = [split for split in self.splits if split.n_clips is not None]
        total: Row = {
            "split": "together"
            if len(counted) == len(rows)
            else f"only {', '.join(s.role for s in counted)}",
            "bytes": size(self.n_bytes),
            "device hours": None if self.device_hours is None else hours_as_text(self.device_hours),
        }
        return [*rows, total] if len(rows) > 1 and counted else rows

    def sentences(self) -> list[str]:
        """What the table does not say, a line each."""
        training, rate = self.training, size(round(self.read_rate))
        what = f"{self.backbone} on {self.task}: layer {', '.join(self.layers)} in {self.dtype}"
        weights, a_step = size(self.weight_bytes), size(self.clip_bytes * training.batch)
        return [
            f"{what}, {size(self.clip_bytes)} a clip, view and layer.",
            *self._uncounted(),
            *self._sharing(),
            *([] if self.seconds_a_clip is None else [f"hours: of one device at {self.speed}."]),
            f"memory of the device: a batch and {weights} of weights{self._precision()}.",
            f"memory of the machine: {size(self.host_bytes)}, for two shards; with a slow disk for a third.",
            f"a readout reads {a_step} a step: {rate} a second at {training.steps_per_second:g} steps/s.",
            *self._pay(),
        ]

    def _precision(self) -> str:
        on_a_gpu = " (on a GPU extract takes bfloat16, half of it)" if self.precision == "float32" else ""
        return f" in {self.precision}{on_a_gpu}" if self.weight_bytes else ""

    def _uncounted(self) -> list[str]:
        roles = [split.role for split in self.splits if split.n_clips is None]
        how = f"say where they are, --data-dir, or the number, --clips {roles[0]}=1000" if roles else ""
        return [f"{', '.join(roles)}: nobody counted the clips; {how}."] if roles else []

    def _sharing(self) -> list[str]:
        roles = ", ".join(split.role for split in self.splits if split.may_share)
        return [f"{roles}: less where clips share frames, which are stored once then."] if roles else []

    def _pay(self) -> list[str]:
        if self.break_even is None or self.online_hours is None:
            return []
        online = f"the model in every step takes {hours_as_text(self.online_hours)} hours a readout"
        if self.break_even <= 1:
            return [f"{online}; the cache has paid after {self.break_even:.1%} of the first."]
        return [f"{online}; the cache has paid after {self.break_even:.1f} of them."]

    def _hours(self, clips: int | None) -> float | None:
        known = clips is not None and self.seconds_a_clip is not None
        return clips * self.seconds_a_clip / 3600 if known else None  # type: ignore[operator]


def make_plan(
    jobs: Sequence[Extraction],
    clips: Mapping[str, int | None],
    *,
    speed: Speed,
    training: Training,
    shard_bytes: int = TARGET_SHARD_BYTES,
) -> Plan:
    """The cost of some splits of one task through one backbone.

    Args:
        jobs: one a split.
        clips: role -> number of clips, None where unknown (`count_clips`).
        speed: of the model.
        training: of one readout.
        shard_bytes: as `featcache.extract.run.Machine`.
    """
    first = jobs[0]
    a_clip = feature_spec(first, 1)
    specs = [_spec(job, clips[job.role] or 1, shard_bytes) for job in jobs]
    # In memory, where tokens are float16 until they are written.
    shards = [spec.clips_per_shard * len(spec.layers) * spec.rows.row_bytes for spec in specs]
    return Plan(
        task=first.task.name,
        backbone=first.name,
        layers=tuple(layer.name for layer in first.layers),
        dtype=first.store_dtype,
        splits=tuple(_split_plan(job, clips[job.role], shard_bytes) for job in jobs),
        clip_bytes=a_clip.payload_bytes // (a_clip.n_views * len(a_clip.layers)),
        arrays_a_layer=len(a_clip.all_arrays) // len(a_clip.layers),
        weight_bytes=round(first.backbone.info.params_m * 1e6) * torch.empty(0, dtype=first.dtype).itemsize,
        precision=str(first.dtype).removeprefix("torch."),
        host_bytes=2 * max(shards),
        seconds_a_clip=speed.seconds_a_clip(first.backbone.info, first.layers),
        speed=speed,
        training=training,
    )


def count_clips(job: Extraction, data_dir: Path) -> int | None:
    """How many clips a split has: as its files say where they are all here, else as the manifest does.

    No record is read: files of records keep their counts at their ends.
    """
    status = split_status(job.dataset, job.split, data_dir)
    known = job.dataset.split(job.split).n_clips
    return known if not status.complete or status.n_clips is None else status.n_clips


def clip_numbers(given: Sequence[str], roles: Sequence[str]) -> dict[str, int]:
    """Role -> number of clips, from words such as `val=5000`.

    Raises:
        CallError: not of this form, or not one of the splits that are planned.
    """
    numbers = {}
    for item in given:
        role, _, number = item.partition("=")
        if role not in roles or not number.isdigit():
            raise CallError(
                f"--clips {item}: write role=number, for example {roles[0]}=5000, of {', '.join(roles)}."
            )
        numbers[role] = int(number)
    return numbers


def _split_plan(job: Extraction, n_clips: int | None, shard_bytes: int) -> SplitPlan:
    if n_clips is None:
        return SplitPlan(role=job.role, n_views=job.views.n_views, n_clips=None)
    spec, targets = _spec(job, n_clips, shard_bytes), planned_targets(job, n_clips)
    a_pass = spec.rows.chunks_per_pass(job.backbone.info.n_frames)
    of_shard = min(spec.clips_per_shard, spec.rows.n_rows) * spec.rows.chunks_per_row
    return SplitPlan(
        role=job.role,
        n_views=spec.n_views,
        n_clips=n_clips,
        feature_bytes=store_bytes(spec),
        target_bytes=stored_bytes(targets),
        other_bytes=_other_bytes(job, n_clips),
        n_files=spec.n_shards * len(spec.all_arrays),
        n_shards=spec.n_shards,
        n_others=_other_files(spec, targets),
        passes=ceil(spec.rows.n_chunks / a_pass),
        shard_passes=ceil(of_shard / a_pass),
        chunks_a_clip=1 if spec.n_frames is None else job.grid.steps,
        may_share=job.frame_steps is not None and spec.n_frames is None,
    )


def _spec(job: Extraction, n_clips: int, shard_bytes: int) -> FeatureSpec:
    """The store's shape, as far as it is known without the files."""
    return feature_spec(job, n_clips, shard_bytes, n_frames=fewest_known(job, n_clips))


def _other_bytes(job: Extraction, n_clips: int) -> int:
    height = TRACKED_HEIGHT if job.task.kind == "tracking" else STRIP_HEIGHT
    pixels = len(preview_clips(n_clips)) * FRAMES_PER_STRIP * height**2
    return round(JPEG_BYTES_PER_PIXEL * pixels) + INDEX_BYTES_PER_CLIP * n_clips + METADATA_BYTES


def _other_files(spec: FeatureSpec, targets: Arrays) -> int:
    """Of a store its root, clip table, strips and log, and what each array says of itself; of targets all."""
    of_frames = 0 if spec.n_frames is None else FRAME_TABLE_FILES
    of_targets = sum(1 + ceil(array.shape[0] / array.chunk_rows) for array in targets.values())
    return 4 + len(spec.all_arrays) + of_frames + (1 + of_targets if targets else 0)


def _row(split: SplitPlan, hours: float | None) -> Row:
    return {
        "split": split.role,
        "clips": "unknown" if split.n_clips is None else f"{split.n_clips:,}",
        "views": split.n_views,
        "device hours": None if hours is None else hours_as_text(hours),
        "bytes": _size(split.n_bytes),
        "features": _size(split.feature_bytes),
        "targets": _size(split.target_bytes),
        "shards": None if split.n_files is None else f"{split.n_files:,}",
    }


def _size(n_bytes: int | None) -> str | None:
    return None if n_bytes is None else size(n_bytes)


def hours_as_text(hours: float) -> str:
    """Hours as people read them, to seconds where they are few."""
    return f"{hours:,.1f}" if ceil(hours) > 1 else f"{hours:.3f}"
