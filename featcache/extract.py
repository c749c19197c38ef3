"""One worker's loop: shards to clips to views to tokens to disk.

Decoding runs in threads ahead of the model and writing in a thread behind it, so the wall time is the
model's. What is left to do is what is not on disk: a killed extraction goes on at the shard it was in.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from featcache import readers
from featcache.backbones.base import Backbone, Encoder
from featcache.clips import Clip, ClipIndex, frame_indices, label_matrix
from featcache.device import device_name
from featcache.errors import CallError, DataError
from featcache.fingerprint import FEATURE_VERSION, fingerprint
from featcache.manifest import Dataset, Manifest, Task
from featcache.previews import clip_strip, preview_clips
from featcache.progress import Progress
from featcache.readers.base import Reader
from featcache.spec import TARGET_SHARD_BYTES, FeatureSpec, Layer, clips_per_shard_for
from featcache.store import FeatureStore, open_features
from featcache.views import ViewPlan, clip_pixels, draw_view
from featcache.writer import StoreWriter, create_or_resume, write_targets

MOST_UNCOUNTED = 352
"""The reference's label counts leave out its last batches: none of fly's clips, 346 of mouse's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extraction:
    """What to extract: one split of one task through one backbone."""

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

    @property
    def name(self) -> str:
        """The backbone as it appears in paths and tables."""
        return self.backbone.info.name + ("_shuffled" if self.shuffle_frames else "")

    @property
    def exactness(self) -> str:
        """Whether stage two sees what the online pipeline would show it, or frozen samples of that."""
        if self.role != "train" or self.task.augmentation.is_identity:
            return "exact"
        return f"{self.views.n_views} frozen view{'s' if self.views.n_views > 1 else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """How to run it: nothing here changes a stored number beyond the hardware's own rounding."""

    device: torch.device
    batch: int
    """Clip views in one forward pass; the last batch of a shard is padded to it."""
    decode_threads: int = 4
    shard_bytes: int = TARGET_SHARD_BYTES
    """What a crash may lose, and the size of the files; a store keeps the one it was begun with."""


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
) -> Extraction:
    """Look everything up and refuse what cannot be; opens no data.

    Raises:
        CallError: an unknown task or role, or views asked for that would all be alike.
    """
    entry = manifest.task(task)
    dataset, split = entry.source_of(role)
    augmented = role == "train" and not entry.augmentation.is_identity
    if n_views > 1 and not augmented and role == "train":
        raise CallError(f"--views {n_views}: task {task} has no augmentation, so its views are all alike.")
    views = ViewPlan(augmentation=entry.augmentation, n_views=n_views if augmented else 1, seed=seed)
    return Extraction(
        task=entry, role=role, dataset=manifest.dataset(dataset), split=split, backbone=backbone,
        layers=layers, views=views, dtype=dtype, shuffle_frames=shuffle_frames,
    )  # fmt: skip


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
        "tokens": {"dtype": "float16", "steps": "all"},
        "clips": {
            "dataset": job.dataset.name,
            "split": job.split,
            "data_version": job.dataset.version,
            "n_clips": len(index),
            "index": index.digest,
            "frames": {**asdict(job.task.clip), "order": "shuffled" if job.shuffle_frames else "as filmed"},
        },
        "views": job.views.as_dict(),
    }


def extract(
    job: Extraction,
    machine: Machine,
    *,
    data_dir: Path,
    cache_dir: Path,
    skip_bad: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> FeatureStore:
    """Extract one split to `<cache>/<task>/<split>/<backbone>-<fingerprint8>.zarr`, or finish what is there.

    Raises:
        DataError: files are missing or broken (with `skip_bad`, single bad records are left out and listed).
        WeightsError: the backbone's weights are missing or do not fit.
        StoreError: the store on disk is not this extraction's, or a token does not fit float16.
    """
    reader = readers.open_reader(job.dataset, job.split, data_dir)
    scan = reader.scan(
        skip_bad=skip_bad, progress=lambda done, total: progress("reading the clip index", done, total)
    )
    if len(scan.index) == 0:
        raise DataError(
            f"{job.dataset.name}/{job.split} under {data_dir} holds no clips: nothing to extract."
        )
    parts = fingerprint_parts(job, scan.index)
    folder = cache_dir / job.task.name / job.role
    spec = feature_spec(job, len(scan.index), machine.shard_bytes)
    provenance = {
        "data": _data_credits(job.dataset),
        "skipped_records": [asdict(bad) for bad in scan.skipped],
        "notes": [*scan.notes, *_label_notes(job, scan.index)],
        **_software(),
    }
    targets = _write_targets(job, scan.index, folder)
    writer = create_or_resume(
        folder / f"{job.name}-{fingerprint(parts)[:8]}.zarr",
        spec=spec, parts=parts, clips=scan.index, provenance=provenance, attrs=_store_attrs(job, targets),
    )  # fmt: skip
    with writer:
        for set_aside in writer.damaged:
            logging.getLogger(__name__).warning(set_aside)
        if writer.header.complete:
            return open_features(writer.path)
        worker = _Worker(job, machine, reader, scan.index, writer, skip_bad=skip_bad)
        worker.run(progress)
        worker.write_previews()
        return writer.finish()


def feature_spec(job: Extraction, n_clips: int, shard_bytes: int = TARGET_SHARD_BYTES) -> FeatureSpec:
    """The store's shape, from arithmetic alone."""
    grid = job.backbone.info.grid
    per_shard = clips_per_shard_for(grid, n_views=job.views.n_views, n_clips=n_clips, shard_bytes=shard_bytes)
    return FeatureSpec(
        grid=grid, layers=job.layers, n_clips=n_clips, n_views=job.views.n_views, clips_per_shard=per_shard
    )


def _store_attrs(job: Extraction, targets: str | None) -> dict[str, object]:
    info = job.backbone.info
    return {
        "task": job.task.name,
        "role": job.role,
        "backbone": job.name,
        "backbone_title": info.title + (", frames shuffled" if job.shuffle_frames else ""),
        "control": info.control,
        "licence": info.licence,
        "exactness": job.exactness,
        "upsampling": info.upsampling,
        "readout_steps": info.readout_steps,
        "targets": targets,
    }


def _software() -> dict[str, object]:
    packages = ("scivid", "torch", "transformers", "numpy", "array-record", "simplejpeg", "av")
    return {"software": {name: version(name) for name in packages}}


def _write_targets(job: Extraction, index: ClipIndex, folder: Path) -> str | None:
    if job.task.kind != "classification":
        return None
    labels = label_matrix(index, len(job.dataset.classes))
    parts = {"clips": index.digest, "classes": list(job.dataset.classes)}
    return write_targets(folder, index, {"labels": labels}, parts).name


def _data_credits(dataset: Dataset) -> dict[str, str]:
    return {
        "title": dataset.title,
        "source": dataset.source,
        "licence": dataset.licence,
        "citation": dataset.citation,
    }


def _label_notes(job: Extraction, index: ClipIndex) -> list[str]:
    """Whether the labels are those of the official release, where it is the one that was counted."""
    split = job.dataset.split(job.split)
    if not split.label_counts or split.label_counts_of is None:
        return []
    counts = label_matrix(index, len(job.dataset.classes)).sum(axis=0, dtype=np.int64)
    uncounted = len(index) - split.label_counts_of
    missing = counts - np.array(split.label_counts)
    if 0 <= uncounted < MOST_UNCOUNTED and ((missing < 0) | (missing > uncounted)).any():
        return [f"labels count {counts.tolist()}, the official release {list(split.label_counts)}"]
    return []


class _Worker:
    """The state of one worker: reader, model and writer, and the threads between them."""

    def __init__(
        self,
        job: Extraction,
        machine: Machine,
        reader: Reader,
        index: ClipIndex,
        writer: StoreWriter,
        *,
        skip_bad: bool,
    ) -> None:
        self.job, self.machine, self.reader, self.index, self.writer = job, machine, reader, index, writer
        self.skip_bad = skip_bad
        self.spec = writer.spec

    def run(self, progress: Progress) -> None:
        """Every shard that is not on disk yet: decode ahead, encode, write behind."""
        todo = self.writer.todo()
        left = sum(len(self.spec.clips_of_shard(shard)) for shard in todo)
        what, done = f"extracting {self.job.role}", self.spec.n_clips - left
        progress(what, done, self.spec.n_clips)
        if not todo:
            return
        started = time.monotonic()
        encoder = self.job.backbone.load(self.job.layers, self.machine.device, self.job.dtype)
        with ThreadPoolExecutor(1, "write") as behind:
            pending: Future[None] | None = None
            for shard in todo:
                tokens, skipped = self._shard_tokens(
                    encoder, shard, partial(_advance, progress, what, done, self.spec.n_clips)
                )
                done += len(self.spec.clips_of_shard(shard))
                if pending is not None:
                    pending.result()
                pending = behind.submit(self.writer.write_shard, shard, tokens, skipped)
            if pending is not None:
                pending.result()
        self.writer.log_run(
            clips=left, seconds=time.monotonic() - started, device=device_name(self.machine.device)
        )

    def write_previews(self) -> None:
        """A few clips of the split as the backbone saw them, for stage two, which has no videos."""
        rows = []
        for number in preview_clips(self.spec.n_clips):
            clip = self.index.clip(number)
            try:
                rows.append((number, clip_strip(self._view(clip, self._read(clip), 0).cpu())))
            except DataError:
                if not self.skip_bad:
                    raise
        self.writer.write_previews(rows)

    def _shard_tokens(
        self, encoder: Encoder, shard: int, done: Callable[[int], None]
    ) -> tuple[Mapping[Layer, Float[np.ndarray, "clip V T H W C"]], dict[int, str]]:
        clips = self.spec.clips_of_shard(shard)
        shape = (len(clips), self.spec.n_views, *self.spec.grid.shape)
        tokens = {layer: np.full(shape, np.nan, np.float16) for layer in self.spec.layers}
        skipped: dict[int, str] = {}
        for batch in _batches(self._decoded(clips, skipped), self.machine.batch):
            features = self._encode(encoder, [pixels for _, _, pixels in batch])
            for layer, values in features.items():
                for (clip, view, _), value in zip(batch, values, strict=False):
                    tokens[layer][clip - clips.start, view] = value
            done(batch[-1][0] - clips.start + 1)
        return tokens, skipped

    def _encode(
        self, encoder: Encoder, pixels: Sequence[Tensor]
    ) -> dict[Layer, Float[np.ndarray, "B T H W C"]]:
        """One forward pass of exactly `batch` clip views, so that a resumed shard meets the same kernels."""
        padding = [torch.zeros_like(pixels[0])] * (self.machine.batch - len(pixels))
        features = encoder(torch.stack([*pixels, *padding]))
        # Rounded on the device: half the bytes to copy. What does not fit becomes infinite, and is refused
        # with the clip's name when the shard is written.
        return {layer: values.half().cpu().numpy() for layer, values in features.items()}

    def _decoded(
        self, clips: range, skipped: dict[int, str]
    ) -> Iterator[tuple[int, int, Float[Tensor, "F rgb Y X"]]]:
        """(clip, view, pixels) in order, decoded by threads a bounded way ahead."""
        ahead: deque[tuple[int, Future[UInt8[np.ndarray, "F Y X C"]]]] = deque()
        window = self.machine.batch + 2 * self.machine.decode_threads
        with ThreadPoolExecutor(self.machine.decode_threads, "decode") as pool:
            numbers = iter(clips)
            while True:
                for number in numbers:
                    ahead.append((number, pool.submit(self._read, self.index.clip(number))))
                    if len(ahead) >= window:
                        break
                if not ahead:
                    return
                number, future = ahead.popleft()
                try:
                    frames = future.result()
                except DataError as problem:
                    if not self.skip_bad:
                        raise
                    skipped[number] = str(problem)
                    continue
                for view in range(self.spec.n_views):
                    yield number, view, self._view(self.index.clip(number), frames, view)

    def _read(self, clip: Clip) -> UInt8[np.ndarray, "F Y X C"]:
        chosen = frame_indices(self.job.task.clip, clip.n_source)
        if self.job.shuffle_frames:
            # Seeded by the content: the same clip is shuffled alike in every split, view and run.
            chosen = np.random.default_rng(int(clip.digest, 16)).permutation(chosen)
        return self.reader.read(clip, chosen.tolist())

    def _view(
        self, clip: Clip, frames: UInt8[np.ndarray, "F Y X C"], view: int
    ) -> Float[Tensor, "T rgb height width"]:
        spec = self.job.task.clip
        drawn = draw_view(self.job.views, clip.id, view, spec.height, spec.width)
        return clip_pixels(torch.from_numpy(frames).to(self.machine.device), spec, drawn)


def _batches(items: Iterator[tuple[int, int, Tensor]], size: int) -> Iterator[list[tuple[int, int, Tensor]]]:
    batch: list[tuple[int, int, Tensor]] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _advance(progress: Progress, what: str, before: int, total: int, more: int) -> None:
    progress(what, before + more, total)
