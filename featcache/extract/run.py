"""Extractions of some splits, one after the other: models loaded, batches chosen, stores begun and finished.

What happens to the clips of one store in between is in `pipeline`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from featcache.backbones.base import Encoder
from featcache.errors import StoreError
from featcache.extract.batch_size import chosen_batch, useful_batch
from featcache.extract.job import Extraction, cut_for
from featcache.extract.pipeline import Pipeline
from featcache.extract.prepare import Prepared, prepare, refuse_full_disk
from featcache.extract.taken_over import taken_over
from featcache.extract.targets.builders import write_split_targets
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from featcache.store.header import StoreHeader
from featcache.store.spec import TARGET_SHARD_BYTES
from featcache.store.targets import open_targets
from featcache.store.writer import StoreWriter, create_or_resume
from featcache.system.ahead import threads_by_cores
from featcache.system.console import Progress, silent
from featcache.system.device import AttentionKernel, attention_kernel, device_name

BATCHES_MADE = 2
"""Whose pixels a device holds while it works on another."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """How to run it: nothing here changes a stored number beyond the hardware's own rounding."""

    device: torch.device
    batch: int | None = None
    """Clip views in one forward pass; the last batch of a shard is padded to it. None: as many as are of use
    and fit, and those that a store was begun with where it goes on on the same device.
    """
    attention_kernel: AttentionKernel | None = None
    """Who computes attention. None: torch chooses, or the one that a store was begun with, as its batch."""
    decode_threads: int | None = None
    """None: as many as there are cores for this process, within bounds."""
    shard_bytes: int = TARGET_SHARD_BYTES
    """What a crash may lose, and the size of the files; a store keeps the one it was begun with."""


def extract_all(
    jobs: Sequence[Extraction],
    machine: Machine,
    *,
    data_dir: Path,
    cache_dir: Path,
    skip_bad: bool = False,
    force: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = _LOG.info,
) -> Iterator[FeatureStore]:
    """Extract some splits, one after the other; each store is given when it is complete.

    A store is `<cache>/<task>/<split>/<backbone>-<fingerprint8>.zarr`; what is there of it is not made again.
    Every split's clips are listed, and the disk is looked at, before the first of them begins. A model is
    loaded once.

    Args:
        jobs: one a split.
        machine: how to run them.
        data_dir: where the data are.
        cache_dir: where stores, targets and clip indexes go.
        skip_bad: skip single bad records, and list them in the store.
        force: begin although the disk would not hold all of it.
        progress: told what is done.
        say: told of a store that was there, what is new of it.

    Raises:
        DataError: files are missing or broken, unless `skip_bad`.
        WeightsError: the backbone's weights are missing or do not fit.
        StoreError: the disk is too small, a store on disk is not this extraction's, or a token does not fit.
    """
    prepared = prepare(
        jobs,
        data_dir=data_dir,
        cache_dir=cache_dir,
        shard_bytes=machine.shard_bytes,
        skip_bad=skip_bad,
        progress=progress,
    )
    if not force:
        refuse_full_disk(cache_dir, prepared)
    model = LoadedModel(machine.device)
    for one in prepared:
        yield _extracted(one, machine, model, skip_bad, progress, say)


def _extracted(
    one: Prepared,
    machine: Machine,
    model: "LoadedModel",
    skip_bad: bool,
    progress: Progress,
    say: Callable[[str], None],
) -> FeatureStore:
    if one.header is None or not one.header.complete:
        model.encoder(one.job)  # first, so that weights that cannot be loaded leave nothing behind
    passes = choose_passes(one, machine, model, _begun(one.header, machine.device))
    with open_writer(one, passes, machine.device, progress) as writer:
        if writer.header.complete:
            say(f"{one.job.role} was there: no feature was computed{_relabelled(one, writer.header)}")
            return writer.finish()
        for note in (*writer.header.provenance["notes"], *writer.damaged):
            _LOG.warning(note)
        pipeline = pipeline_for(one, passes, machine, model, writer, skip_bad=skip_bad)
        if pipeline.known is not None:
            say(f"{one.job.role}: {pipeline.known}, of {one.spec.rows.n_rows:,}")
        bound = pipeline.run(progress)
        pipeline.write_previews()
        store = writer.finish()
        if bound is not None:
            say(bound)
        return store


@dataclass(frozen=True, kw_only=True, slots=True)
class Passes:
    """What decides the last bits of a store beside the device: all of it goes through the model so."""

    batch: int
    """Clips in one forward pass."""
    attention_kernel: AttentionKernel

    def on(self, device: torch.device) -> dict[str, Any]:
        """What a store keeps of them."""
        kept = {"clip_views": self.batch, "device": device_name(device)}
        return (
            kept if self.attention_kernel == "torch" else kept | {"attention_kernel": self.attention_kernel}
        )


def choose_passes(one: Prepared, machine: Machine, model: "LoadedModel", begun: Mapping[str, Any]) -> Passes:
    """Those asked for, or those that a store was `begun` with as it says, or what fits."""
    kernel = machine.attention_kernel or begun.get("attention_kernel", "torch")
    batch = machine.batch or begun.get("clip_views") or _fitting_batch(one, model, kernel)
    return Passes(batch=batch, attention_kernel=kernel)


def open_writer(
    one: Prepared, passes: Passes, device: torch.device, progress: Progress, *, with_others: bool = False
) -> StoreWriter:
    """Write the targets of a split, and begin its store or go on with it, alone or `with_others`.

    Raises:
        DataError: the targets of a clip are missing or broken.
        StoreError: as `create_or_resume`.
    """
    targets = None
    if one.targets is not None:
        targets = write_split_targets(one.targets, one.index, one.path.parent, one.job.role, progress)
    return create_or_resume(
        one.path,
        spec=cut_for(one.spec, passes.batch * one.chunks_per_pass),
        parts=one.parts,
        clips=one.index,
        provenance=one.provenance | {"batch": passes.on(device)},
        attrs=one.attrs | {"targets": targets},
        frames=one.frames,
        found=one.header,
        with_others=with_others,
    )


def pipeline_for(
    one: Prepared,
    passes: Passes,
    machine: Machine,
    model: "LoadedModel",
    writer: StoreWriter,
    *,
    skip_bad: bool,
) -> Pipeline:
    """The loop over a store that is open; its model is loaded when there is something to do."""
    return Pipeline(
        one,
        lambda: _attending(model.encoder(one.job), passes.attention_kernel),
        writer,
        batch=passes.batch,
        device=machine.device,
        decode_threads=machine.decode_threads or threads_by_cores(),
        skip_bad=skip_bad,
        known=taken_over(one) if writer.todo() else None,
    )


def _relabelled(one: Prepared, now: StoreHeader) -> str:
    """What to say of a complete store whose labels were corrected since it was made."""
    before = None if one.header is None else one.header.targets
    if before is None or now.targets is None or before.fingerprint == now.targets.fingerprint:
        return ""
    try:
        old, new = (open_targets(one.path / of.path).read("labels") for of in (before, now.targets))
    except (KeyError, StoreError):  # a task without labels, or those of before are gone
        return ", its targets are new"
    changed = f"{(old != new).any(axis=1).sum()} clips" if old.shape == new.shape else "its clips"
    return f", the labels of {changed} are new"


def _begun(header: StoreHeader | None, device: torch.device) -> Mapping[str, Any]:
    """The batch and kernel that a store was begun with, on this kind of device where it is to go on."""
    if header is None:
        return {}
    begun: Mapping[str, Any] = header.provenance.get("batch", {})
    return begun if header.complete or begun.get("device") == device_name(device) else {}


def _fitting_batch(one: Prepared, model: "LoadedModel", kernel: AttentionKernel) -> int:
    """As many inputs as are of use and the device's memory holds, found by trial passes."""
    info, spec = one.job.backbone.info, one.job.clip_spec
    shape = info.n_frames, 3, *(one.job.resized_to or (spec.height, spec.width))

    def encode(batch: int) -> object:
        # As in an extraction there are those of the next passes too.
        pixels = [torch.zeros(batch, *shape, device=model.device) for _ in range(BATCHES_MADE + 1)]
        with torch.inference_mode():
            return _attending(model.encoder(one.job), kernel)(pixels[0])

    inputs = one.spec.all_arrays[0].chunks_per_shard // one.chunks_per_pass
    return chosen_batch(encode, model.device, most=useful_batch(inputs, prod(info.grid.shape[:-1])))


class LoadedModel:
    """The encoder of the last job, loaded when it is first needed and kept for the next of the same model."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._loaded: tuple[Extraction, Encoder] | None = None

    def encoder(self, job: Extraction) -> Encoder:
        """The encoder of a job.

        Raises:
            WeightsError: its weights are missing or do not fit.
        """
        if self._loaded is not None:
            other, encoder = self._loaded
            same = (other.layers, other.dtype) == (job.layers, job.dtype)
            if same and other.backbone is job.backbone:
                return encoder
        self._loaded = None  # let go of it before the next is loaded
        encoder = job.backbone.load(job.layers, self.device, job.dtype)
        self._loaded = (job, encoder)
        return encoder


def _attending(encoder: Encoder, kernel: AttentionKernel) -> Encoder:
    def encode(pixels: Float[Tensor, "B F rgb Y X"]) -> dict[Layer, Float[Tensor, "B T H W C"]]:
        with attention_kernel(kernel):
            return encoder(pixels)

    return encode
