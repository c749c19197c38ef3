"""Extraction against what it cannot do without: the forward passes alone, and decoding alone.

A model that keeps a device busy and this machine idle, as a GPU does, is played by a pause; one that shares
the cores with decoding is VideoMAE-B at full size. `resize` has next to no forward: there the data are all.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from typing import Any

import torch

from featcache import synthetic
from featcache.backbones import backbone_info, load_backbone
from featcache.backbones.base import Backbone, Encoder
from featcache.backbones.families.resize import ResizeTokens
from featcache.clips import ClipIndex
from featcache.data.readers import open_reader
from featcache.data.readers.base import Reader
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.pixels.clip_views import ClipViews
from featcache.extract.run import Machine
from featcache.manifest import load_manifest
from featcache.spec import Layer
from featcache.store.spec import TARGET_SHARD_BYTES
from featcache.system.threads import single_threaded_pool
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.featcache.one_split import extract

CPU = torch.device("cpu")
GROUP = "extraction"
DECODE_THREADS = 4
N_CLIPS = 2_000
"""Of a split where data are all there is: a store's 24 strips weigh next to nothing, as in a real one."""


@dataclass(frozen=True)
class Paced:
    """A model of a given shape: a pass takes a given time and none of this machine's."""

    inner: Backbone
    seconds: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def load(self, layers: tuple[Layer, ...], device: torch.device, dtype: torch.dtype) -> Encoder:
        """Tokens that are ready after a pause."""
        tokens = torch.zeros(1, *self.inner.info.grid.shape)

        def encode(pixels: torch.Tensor) -> dict[Layer, torch.Tensor]:
            sleep(self.seconds)
            return dict.fromkeys(layers, tokens.expand(len(pixels), -1, -1, -1, -1))

        return encode


@dataclass(frozen=True, kw_only=True)
class Work:
    """One split through one model."""

    job: Extraction
    data_dir: Path
    cache_dir: Path
    batch: int
    shard_bytes: int = TARGET_SHARD_BYTES

    def extract(self) -> None:
        """All of it: the store is made anew, the clip index is that of the round before."""
        shutil.rmtree(self.cache_dir / self.job.task.name, ignore_errors=True)
        machine = Machine(
            device=CPU, batch=self.batch, decode_threads=DECODE_THREADS, shard_bytes=self.shard_bytes
        )
        extract(self.job, machine, data_dir=self.data_dir, cache_dir=self.cache_dir)

    def forward(self) -> Callable[[], None]:
        """As many passes, of pixels that lie ready, by a model that is loaded."""
        info = self.job.backbone.info
        encoder = self.job.backbone.load(self.job.layers, CPU, self.job.dtype)
        pixels = torch.rand(self.batch, info.n_frames, 3, *info.input_size)
        n_clips = len(self.index)

        def passes() -> None:
            for _ in range(-(-n_clips // self.batch)):
                encoder(pixels)

        return passes

    def decode(self) -> None:
        """Every clip's frames, by the same threads; nothing is done with them."""
        self._each(lambda views, clip: views.read(clip, 1))

    def pixels(self) -> None:
        """Every clip as a model takes it: frames decoded, resized, scaled, in float32."""
        self._each(lambda views, clip: list(views.pixels(clip, views.read(clip, 1), 1)))

    @cached_property
    def index(self) -> ClipIndex:
        """The clips of the split; scanned once, as extraction keeps it too."""
        return self._reader.scan().index

    @cached_property
    def _reader(self) -> Reader:
        return open_reader(self.job.dataset, self.job.split, self.data_dir)

    def _each(self, made: Callable[[ClipViews, Any], object]) -> None:
        views, index = ClipViews(self.job, self._reader), self.index

        def one(number: int) -> None:
            made(views, index.clip(number))

        with single_threaded_pool(DECODE_THREADS, "decode") as pool:
            list(pool.map(one, range(len(index))))


def resize_at_full_size() -> Backbone:
    """`resize` that is given the frames which the benchmark's models see."""
    info = backbone_info("resize")
    return ResizeTokens(info=replace(info, input_size=(224, 224), resize_once=False), patch=(1, 14, 14))


def measure(small: bool) -> list[Claim]:
    """Pipelined extraction over the passes alone; decoding alone over extraction with `resize`."""
    rounds = 1 if small else 5
    profile = "tiny" if small else "demo"
    tasks = ("flyvsfly",) if small else ("flyvsfly", "calms21")
    with TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        for name in tasks:
            synthetic.generate(name, data_dir, profile=profile, seed=0)
        # Frames of the size that models see; 36 MB of tokens a batch would be another measurement, of disks.
        paced = Paced(resize_at_full_size(), 0.01 if small else 0.3)
        role = "val" if small else "train"
        claims = _hidden(_work("flyvsfly", role, data_dir, paced), rounds)
        claims += _shards_of_one_batch(data_dir, role, min(rounds, 3), small)
        claims += _shared(data_dir, rounds, small)
        for task in tasks:
            if not small:
                synthetic.generate(task, data_dir / "many", profile={role: N_CLIPS}, seed=0)
            work = _work(task, role, data_dir)
            claims += _bare(replace(work, data_dir=data_dir if small else data_dir / "many"), rounds)
        return claims


def _work(task: str, role: str, data_dir: Path, backbone: Any = None, batch: int = 8) -> Work:
    model = backbone or load_backbone("resize")
    job = plan_extraction(
        load_manifest(), task=task, role=role, backbone=model, layers=model.info.default_layers,
        n_views=1, seed=0, dtype=torch.float32,
    )  # fmt: skip
    return Work(
        job=job, data_dir=data_dir, cache_dir=data_dir.with_name(f"cache_{model.info.name}"), batch=batch
    )


def _hidden(work: Work, rounds: int) -> list[Claim]:
    times = in_turn({"extract": work.extract, "passes alone": work.forward()}, rounds=min(rounds, 3))
    what = f"a device busy for 0.3 s a batch of {work.batch}: wall time over its passes alone"
    return [_over(times, what, target=1.03)]


def _shards_of_one_batch(data_dir: Path, role: str, rounds: int, small: bool) -> list[Claim]:
    """A model that takes two and five times as long as pixels: the next shard is made meanwhile."""
    model = resize_at_full_size()
    work = _work("flyvsfly", role, data_dir, model, batch=4)
    if not small:
        # Many batches: a store begins and ends in 0.2 s, and the model waits for the first of its batches.
        synthetic.generate("flyvsfly", data_dir / "some", profile={role: 80 * work.batch}, seed=0)
        work = replace(work, data_dir=data_dir / "some")
    work = replace(work, shard_bytes=work.batch * model.info.grid.nbytes)
    n_batches = -(-len(work.index) // work.batch)
    seconds = sum(in_turn({"pixels": work.pixels}, rounds=1)["pixels"]) / n_batches
    claims = []
    for factor, target in ((2, 1.1), (5, 1.03)):
        paced = replace(work, job=replace(work.job, backbone=Paced(model, factor * seconds)))
        times = dict(
            in_turn(
                {"extract": paced.extract, "passes alone": paced.forward(), "clips alone": paced.pixels},
                rounds=rounds,
            )
        )
        times["the longer"] = [
            max(pair) for pair in zip(times["passes alone"], times["clips alone"], strict=True)
        ]
        what = f"{n_batches} shards of one batch, a pass as long as {factor} times its pixels: wall time"
        claims.append(
            claim(
                times, group=GROUP, what=f"{what} over the longer of passes and pixels alone", over="extract",
                under="the longer", target=target, at_least=False,
            )
        )  # fmt: skip
    return claims


def _shared(data_dir: Path, rounds: int, small: bool) -> list[Claim]:
    name = "resize" if small else "videomae_random_b"
    work = _work("flyvsfly", "val", data_dir, load_backbone(name), batch=2)
    if not small:
        # A pass takes seconds here: a few clips of the split are enough.
        synthetic.generate("flyvsfly", data_dir / "few", profile="tiny", seed=0)
        work = replace(work, data_dir=data_dir / "few")
    # Minutes a round, and no need to warm up.
    times = in_turn(
        {"extract": work.extract, "passes alone": work.forward()}, rounds=min(rounds, 2), warm_up=0
    )
    return [_over(times, f"{name} on these cores: wall time over its passes alone", target=1.03)]


def _over(times: Any, what: str, *, target: float) -> Claim:
    return claim(
        times, group=GROUP, what=what, over="extract", under="passes alone", target=target, at_least=False
    )


def _bare(work: Work, rounds: int) -> list[Claim]:
    times = in_turn(
        {"extract": work.extract, "clips alone": work.pixels, "frames alone": work.decode}, rounds=rounds
    )
    task = work.job.task.name
    return [
        claim(
            times, group=GROUP, what=f"resize, {task}: speed over making clips alone (decode, resize, scale)",
            over="clips alone", under="extract", target=0.9,
        ),
        claim(
            times, group=GROUP, what=f"resize, {task}: speed over decoding frames alone",
            over="frames alone", under="extract",
        ),
    ]  # fmt: skip
