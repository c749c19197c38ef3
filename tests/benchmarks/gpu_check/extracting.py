"""Extraction end to end on generated clips: models of three sizes, what bounds them, the same bits again.

What bounds one is as the extraction says it: the time that was waited for pixels, for the disk, and the rest,
which is the model's. Beside it stand its passes as the device itself counts them.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from featcache import synthetic
from featcache.backbones.base import Backbone, Encoder
from featcache.clips import Clip
from featcache.data.readers import open_reader
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.pixels.clip_views import ClipViews
from featcache.extract.pixels.device_pixels import DevicePixels
from featcache.extract.run import Machine
from featcache.manifest import load_manifest
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from featcache.system.threads import single_threaded_pool
from tests.benchmarks.gpu_check.check import Check
from tests.benchmarks.random_backbones import random_backbone
from tests.featcache.one_split import extract

TASK = "flyvsfly"
MODELS = {"videomae_b": 12.0, "4ds_l": 20.0, "vjepa2_g": 30.0}
"""Model -> seconds that it takes at the most."""

ONE_BLOCK = "dinov3_s"
"""What stands for them in small sizes, cut after its first block."""

HELD_TO_THE_PEAK = ("4ds_l", "vjepa2_g")
"""L and larger."""

N_CLIPS = 768
THREADS = (1, 4, 16)


def measure(check: Check) -> None:
    """Decoding alone, the models, and a run that was killed."""
    with TemporaryDirectory() as folder:
        data, cache = Path(folder) / "data", Path(folder) / "features"
        n_clips = 6 if check.small else N_CLIPS
        synthetic.generate(TASK, data, profile={"train": n_clips}, seed=0, workers=os.cpu_count() or 2)
        check.note("clips", n_clips)
        decoding = {n: _decoding(check, data, n, 6 if check.small else 48 * n) for n in THREADS}
        check.note(
            "clips a second, decoding alone", {f"{n} threads": round(of, 1) for n, of in decoding.items()}
        )
        with check.guarded("pixels"):
            check.note("pixels on the device, ms a clip", _pixels(check, data))
        for name, seconds in ({ONE_BLOCK: 0.0} if check.small else MODELS).items():
            if not check.has(seconds):
                check.note(f"{name}, left out for time", True)
                continue
            with check.guarded(name):
                check.note(name, _extraction(check, name, data, cache / name))
        with check.guarded("killed and resumed"):
            _resumed(check, data, cache)


def smallest(check: Check) -> str:
    """The model for what is not about the model."""
    return ONE_BLOCK if check.small else next(iter(MODELS))


def job_of(check: Check, name: str, role: str = "train") -> Extraction:
    """One split of generated clips through a model of random weights."""
    backbone = random_backbone(name, check.device, depth=1 if check.small else None)
    return plan_extraction(
        load_manifest(), task=TASK, role=role, backbone=backbone, layers=backbone.info.default_layers,
        n_views=1, seed=0, dtype=check.dtype,
    )  # fmt: skip


def machine_of(check: Check) -> Machine:
    """As it comes, in small sizes with more than one pass all the same."""
    return Machine(device=check.device, batch=2 if check.small else None)


def _decoding(check: Check, data: Path, threads: int, n_clips: int) -> float:
    """Clips a second that so many threads read and decode, with nothing done to them."""
    views, clips = _clips(check, data, n_clips)
    with single_threaded_pool(threads, "decode") as pool:
        list(pool.map(lambda clip: views.read(clip, 1), clips[:threads]))
        started = perf_counter()
        list(pool.map(lambda clip: views.read(clip, 1), clips))
    return len(clips) / (perf_counter() - started)


def _pixels(check: Check, data: Path) -> float:
    """Milliseconds a clip from decoded frames to the model's input, a batch at once."""
    views, clips = _clips(check, data, 2 if check.small else 32)
    maker = DevicePixels(views, check.device)
    shown = [one for clip in clips for one in maker.of_clip(clip, views.read(clip, 1), 1)]
    return round(check.row_ms(lambda: maker.batch(shown, len(shown)), n=5) / len(shown), 4)


def _clips(check: Check, data: Path, n: int) -> tuple[ClipViews, list[Clip]]:
    """The first clips that were generated."""
    job = job_of(check, smallest(check))
    reader = open_reader(job.dataset, job.split, data)
    index = reader.scan().index
    return ClipViews(job, reader), [index.clip(number) for number in range(min(n, len(index)))]


@dataclass(frozen=True)
class Timed:
    """A backbone whose passes are timed by the device itself; on a CPU by the clock."""

    inner: Backbone
    passes: list[Any] = field(default_factory=list)
    """Of each pass its seconds, or the two events around it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def load(self, layers: tuple[Layer, ...], device: torch.device, dtype: torch.dtype) -> Encoder:
        """The model's own encoder between two events."""
        encoder = self.inner.load(layers, device, dtype)

        def timed(pixels: torch.Tensor) -> dict[Layer, torch.Tensor]:
            if device.type != "cuda":
                started = perf_counter()
                tokens = encoder(pixels)
                self.passes.append(perf_counter() - started)
                return tokens
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            tokens = encoder(pixels)
            last.record()
            self.passes.append((first, last))
            return tokens

        return timed

    @property
    def seconds(self) -> float:
        """Of all passes."""
        return sum(
            one if isinstance(one, float) else one[0].elapsed_time(one[1]) / 1e3 for one in self.passes
        )


def _extraction(check: Check, name: str, data: Path, cache: Path) -> dict[str, object]:
    job = job_of(check, name)
    timed = Timed(job.backbone)
    row: dict[str, Any] = {}
    with check.peak_into(row):
        store = extract(replace(job, backbone=timed), machine_of(check), data_dir=data, cache_dir=cache)
    check.wait()
    last = last_run(store)
    n_clips, seconds, waited = store.spec.n_clips, last["seconds"], last["waited"]
    shares = {**waited, "model": seconds - sum(waited.values())}
    row |= {
        "clips a second": round(n_clips / seconds, 1),
        "s": round(seconds, 2),
        "clips at once": store.provenance["batch"]["clip_views"],
        "passes": len(timed.passes),
        "their s": round(timed.seconds, 2),
        **{f"waited for the {what}, s": round(of, 2) for what, of in waited.items()},
        "bound by the": max(shares, key=shares.__getitem__),
        "tokens, GB/s": round(store.spec.payload_bytes / seconds / 1e9, 3),
    }
    if check.peak_tflops:
        info, block = job.backbone.info, job.layers[0].block
        tflop = (info.gflop or 0.0) * block / info.n_blocks * n_clips / 1e3
        row["of the matrix product"] = round(tflop / seconds / check.peak_tflops, 3)
        check.compare(
            f"extraction with {name}, of the matrix product",
            tflop / seconds / check.peak_tflops,
            target=0.5 if name in HELD_TO_THE_PEAK else None,
            detail=f"bound by the {row['bound by the']}",
        )
    return row


def _resumed(check: Check, data: Path, cache: Path) -> None:
    """Twice without a break, and once stopped between shards and begun again: the same files."""
    job = job_of(check, smallest(check))
    machine = replace(machine_of(check), shard_bytes=2**22 if check.small else 2**26)  # many shards
    run = partial(extract, job, machine, data_dir=data)
    whole, again = (shards_of(run(cache_dir=cache / which)) for which in ("whole", "again"))
    check.compare("shards of a second extraction that are the same", _same(whole, again), target=1.0)
    told: list[int] = []

    def stop(what: str, done: int, total: int) -> None:
        told.append(done)
        if 2 * done >= total and "extracting" in what:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        run(cache_dir=cache / "killed", progress=stop)
    there = len([path for path in (cache / "killed").rglob("c.*") if path.is_file()])
    resumed = shards_of(run(cache_dir=cache / "killed"))
    check.note("stopped", f"after {told[-1]} clips, {there} of {len(whole)} shards on disk")
    check.compare("shards of a resumed extraction that are the same", _same(whole, resumed), target=1.0)


def last_run(store: FeatureStore) -> dict[str, Any]:
    """How long the last run that extracted took, and what it waited for, as the store keeps it."""
    run: dict[str, Any] = json.loads((store.path / "runs.jsonl").read_text().splitlines()[-1])
    return run


def shards_of(store: FeatureStore) -> dict[str, str]:
    """Shard file -> digest of its bytes."""
    files = (path for path in sorted(store.path.rglob("c.*")) if path.is_file())
    return {
        str(path.relative_to(store.path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def _same(one: Mapping[str, str], other: Mapping[str, str]) -> float:
    """Share of the files."""
    return sum(other.get(name) == digest for name, digest in one.items()) / len(one)
