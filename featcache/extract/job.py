"""What an extraction is: one split of one task through one backbone, and all that follows from that.

The fingerprint, the shape of the store, what is written into it about itself. Nothing is read or run here.
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from featcache.backbones.base import Backbone
from featcache.clips import ClipIndex, label_matrix
from featcache.data.readers.base import Scan
from featcache.data.views import ViewPlan
from featcache.errors import CallError
from featcache.fingerprint import FEATURE_VERSION
from featcache.manifest import Dataset, Manifest, Task
from featcache.resampling import temporal_matrix
from featcache.spec import SHUFFLED, ClipSpec, Corruption, Layer, TokenGrid
from featcache.store.frame_table import table_bytes
from featcache.store.shards import shard_bytes as bytes_of_shard
from featcache.store.spec import TARGET_SHARD_BYTES, FeatureSpec, TokenDtype, rows_per_shard_for
from featcache.system.versions import version_of

SOFTWARE = ("scivid", "torch", "transformers", "numpy", "array-record", "simplejpeg", "av")
"""Packages whose versions a store keeps."""

MOST_UNCOUNTED = 352
"""Clips at the end of a split that the reference's label counts lack: none of fly's, 346 of mouse's."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What to extract, one split of one task through one backbone; what follows is worked out once."""

    task: Task
    role: str
    dataset: Dataset
    split: str
    backbone: Backbone
    layers: tuple[Layer, ...]
    views: ViewPlan
    dtype: torch.dtype
    shuffle_frames: bool = False
    """Frames in a random order, the same for every run: what does time matter to this model?"""
    store_dtype: TokenDtype = "float16"
    corruption: Corruption | None = None
    """What is done to every clip before the model sees it; None: they are as they were filmed."""

    @cached_property
    def name(self) -> str:
        """The backbone as it appears in paths and tables."""
        corrupted = "" if self.corruption is None else self.corruption.ending
        return self.backbone.info.name + corrupted + (SHUFFLED if self.shuffle_frames else "")

    @cached_property
    def clip_spec(self) -> ClipSpec:
        """How the split's clips are cut."""
        return self.task.clip_of(self.role)

    @cached_property
    def grid(self) -> TokenGrid:
        """The tokens that are stored of each clip and view: the backbone's, or the last of their steps."""
        native = self.backbone.info.grid
        return native if self.task.tokens == "all" else replace(native, steps=1)

    @cached_property
    def resized_to(self) -> tuple[int, int] | None:
        """Rows and columns that frames are resized to at once for the backbone; None: those of the clips."""
        info = self.backbone.info
        return info.input_size if info.resize_once else None

    @cached_property
    def step_weights(self) -> Float[Tensor, " T"] | None:
        """Share of each native step in the only one that is stored; None where all of them are.

        Where the readout reads the last step only, that is the last of the up-sampled steps, as in the
        reference: under a cubic resize a mix of the last two native ones, and the mix takes half the bytes.
        """
        info = self.backbone.info
        if self.task.tokens == "all":
            return None
        if info.upsampling is None:
            return torch.eye(info.grid.steps)[-1]
        return temporal_matrix(info.grid.steps, info.readout_steps or info.grid.steps, info.upsampling)[-1]

    @cached_property
    def frame_steps(self) -> tuple[int, ...] | None:
        """The native steps that are stored, where each is of one frame as it was filmed; else None.

        So it is with an image model, unless a view is more than its start (drawn: resized, cropped, blurred),
        or corrupted as its clip is.
        """
        drawn = self.views.n_views > 1 and self.views.starts is None
        if drawn or self.corruption is not None or not self.backbone.info.frame_level:
            return None
        if self.step_weights is None:
            return tuple(range(self.backbone.info.grid.steps))
        kept = torch.nonzero(self.step_weights).flatten().tolist()
        return tuple(kept) if len(kept) == 1 else None

    @cached_property
    def exactness(self) -> str:
        """Whether stage two sees what the online pipeline would show it, or frozen samples of that."""
        views = f"{self.views.n_views} view{'s' if self.views.n_views > 1 else ''}"
        if self.role == "train" and not self.task.augmentation.is_identity:
            exact = views.replace("view", "frozen view")
        else:
            exact = "exact" if self.views.n_views == 1 else f"exact, {views}"
        return exact if self.store_dtype == "float16" else f"{exact}, rounded to {self.store_dtype}"


def plan_extraction(
    manifest: Manifest,
    *,
    task: str,
    role: str,
    backbone: Backbone,
    layers: tuple[Layer, ...],
    n_views: int,
    seed: int,
    dtype: torch.dtype,
    shuffle_frames: bool = False,
    store_dtype: TokenDtype = "float16",
    corruption: Corruption | None = None,
) -> Extraction:
    """Look everything up and refuse what cannot be; opens no data.

    Raises:
        CallError: an unknown task or role, views asked for that would all be alike, or clips to be corrupted
            that readouts learn from, or that are no pictures.
    """
    entry = manifest.task(task)
    dataset, split = entry.source_of(role)
    if corruption is not None:
        _refuse_corrupted(role, manifest.dataset(dataset))
    return Extraction(
        task=entry, role=role, dataset=manifest.dataset(dataset), split=split, backbone=backbone,
        layers=layers, views=_view_plan(entry, role, n_views, seed), dtype=dtype,
        shuffle_frames=shuffle_frames, store_dtype=store_dtype, corruption=corruption,
    )  # fmt: skip


def _refuse_corrupted(role: str, dataset: Dataset) -> None:
    if role == "train":
        raise CallError("--corruption is for clips that are scored: readouts learn from clips as filmed.")
    if dataset.pixels.mean:
        raise CallError(f"--corruption: {dataset.name} holds fields, not pictures of values from 0 to 1.")


def _view_plan(task: Task, role: str, n_views: int, seed: int) -> ViewPlan:
    starts = task.starts if role == "train" else None
    if starts is not None:
        if n_views not in (1, starts.n_starts):
            raise CallError(
                f"--views {n_views}: the training clips of {task.name} have {starts.n_starts} starts, a view "
                "each, and all are stored: leave --views out."
            )
        return ViewPlan(augmentation=task.augmentation, n_views=starts.n_starts, seed=seed, starts=starts)
    augmented = role == "train" and not task.augmentation.is_identity
    if n_views > 1 and not augmented and role == "train":
        raise CallError(
            f"--views {n_views}: task {task.name} has no augmentation, so its views are all alike."
        )
    return ViewPlan(augmentation=task.augmentation, n_views=n_views if augmented else 1, seed=seed)


def split_roles(manifest: Manifest, task: str, text: str) -> list[str]:
    """The splits of a task that `text` names: `all`, or some of them with commas.

    Raises:
        CallError: the task has no such split.
    """
    known = list(manifest.task(task).splits)
    wanted = known if text == "all" else [role.strip() for role in text.split(",")]
    for role in wanted:
        manifest.task(task).source_of(role)
    return wanted


def fingerprint_parts(job: Extraction, index: ClipIndex) -> dict[str, object]:
    """Everything that changes a feature, readable; batch size, device and paths are not in it."""
    return {
        "feature_version": FEATURE_VERSION,
        "backbone": {
            "name": job.backbone.info.name,
            "architecture": job.backbone.architecture(),
            "weights": job.backbone.weights_digest(),
            "precision": str(job.dtype).removeprefix("torch."),
        },
        "preprocessing": job.backbone.preprocessing(),
        "layers": [layer.name for layer in job.layers],
        "tokens": _token_part(job),
        "decoding": _decoding_part(job.dataset),
        "frames": {**asdict(job.task.clip), "order": "shuffled" if job.shuffle_frames else "as filmed"},
        # Labels are not in it: correcting one does not change a token.
        "clips": {
            "dataset": job.dataset.name,
            "split": job.split,
            "data_version": job.dataset.version,
            "n_clips": len(index),
            "index": index.frames_digest,
            # Here, for a readout is tested on clips that are cut in another way than those it learned from.
            **({} if job.clip_spec == job.task.clip else {"cut": asdict(job.clip_spec)}),
        },
        # A split's own, as views are: a readout that learned from clips as filmed may be scored on them.
        "views": job.views.as_dict() | _corruption_part(job),
    }


def _corruption_part(job: Extraction) -> dict[str, object]:
    return {} if job.corruption is None else {"corruption": job.corruption.as_dict()}


def _token_part(job: Extraction) -> dict[str, object]:
    weights = job.step_weights
    kept: object = "all" if weights is None else {"last": weights.tolist()}
    return {"dtype": job.store_dtype, "steps": kept}


def _decoding_part(dataset: Dataset) -> dict[str, object]:
    part: dict[str, object] = {
        "reader": dataset.reader,
        "channels": dataset.channels,
        "image": dataset.features.get("image", dataset.features.get("values")),
    }
    if not dataset.pixels.are_bytes:
        part["pixels"] = {
            k: list(v) if isinstance(v, tuple) else v for k, v in asdict(dataset.pixels).items()
        }
    return part | ({"variables": list(dataset.variables)} if dataset.variables else {})


def feature_spec(
    job: Extraction, n_clips: int, shard_bytes: int = TARGET_SHARD_BYTES, n_frames: int | None = None
) -> FeatureSpec:
    """The store's shape, from arithmetic alone.

    Args:
        job: the extraction.
        n_clips: of the split.
        shard_bytes: what a shard is to hold at the most, in float16.
        n_frames: distinct ones, where these are stored once.
    """
    spec = FeatureSpec(
        grid=job.grid,
        layers=job.layers,
        n_clips=n_clips,
        n_views=job.views.n_views,
        clips_per_shard=1,
        dtype=job.store_dtype,
        n_frames=n_frames,
    )
    return replace(spec, clips_per_shard=rows_per_shard_for(spec.rows, shard_bytes))


def cut_for(spec: FeatureSpec, at_once: int) -> FeatureSpec:
    """The same store in shards, down to half as large, that fill batches of `at_once` chunks best."""
    most, chunks = spec.clips_per_shard, spec.rows.chunks_per_row
    if most == spec.rows.n_rows:
        return spec
    best = min(range(most, most // 2, -1), key=lambda n_rows: -n_rows * chunks % at_once / n_rows)
    return replace(spec, clips_per_shard=best)


def store_bytes(spec: FeatureSpec) -> int:
    """Exact size of all shard files of a store that lacks no clip, and of its table of distinct frames."""
    full, last = (len(spec.rows_of_shard(shard)) for shard in (0, spec.n_shards - 1))
    of_full, of_last = (bytes_of_shard(spec, n * spec.rows.chunks_per_row) for n in (full, last))
    a_layer = (spec.n_shards - 1) * of_full + of_last
    return len(spec.layers) * a_layer + table_bytes(spec)


def store_attributes(job: Extraction) -> dict[str, object]:
    """What the store says of itself beside its fingerprint, but for the name of its targets."""
    info = job.backbone.info
    weights = {} if info.weights_from is None else {"weights": weights_in_words(job.backbone)}
    return {
        "task": job.task.name,
        "role": job.role,
        "backbone": job.name,
        "backbone_title": _title(job),
        "control": info.control,
        "licence": info.licence,
        **weights,
        **_corruption_part(job),
        "exactness": job.exactness,
        "upsampling": info.upsampling if job.task.tokens == "all" else None,
        "readout_steps": info.readout_steps if job.task.tokens == "all" else 1,
    }


def _title(job: Extraction) -> str:
    corrupted = "" if job.corruption is None else f", clips corrupted: {job.corruption.kind}"
    return job.backbone.info.title + corrupted + (", frames shuffled" if job.shuffle_frames else "")


def weights_in_words(backbone: Backbone) -> str:
    """Where weights of the user's own came from, and the first digits of their digest."""
    return f"{backbone.info.weights_from}, sha256 {backbone.weights_digest()[:16]}"


def provenance_of(job: Extraction, scan: Scan) -> dict[str, Any]:
    """Where the data came from, what was skipped of them, what they were read and run with."""
    return {
        "data": {
            "title": job.dataset.title,
            "source": job.dataset.source,
            "licence": job.dataset.licence,
            "citation": job.dataset.citation,
        },
        "skipped_records": [asdict(bad) for bad in scan.skipped],
        "notes": [*scan.notes, *_label_notes(job, scan.index)],
        "software": {name: version_of(name) for name in SOFTWARE},
    }


def _label_notes(job: Extraction, index: ClipIndex) -> list[str]:
    """Whether the labels are those of the official release, where it is the one that was counted."""
    split = job.dataset.split(job.split)
    if not split.label_counts or split.label_counts_of is None:
        return []
    if not 0 <= (uncounted := len(index) - split.label_counts_of) < MOST_UNCOUNTED:
        return []
    counts = label_matrix(index, len(job.dataset.classes)).sum(axis=0, dtype=np.int64)
    missing = counts - np.array(split.label_counts)
    if ((missing < 0) | (missing > uncounted)).any():
        return [f"labels count {counts.tolist()}, the official release {list(split.label_counts)}"]
    return []
