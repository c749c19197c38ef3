"""Speed and memory of every backbone at full size, with random weights in the released layout.

    python tests/benchmarks/backbone_speed.py [--backbones dinov2_b,4ds_l] [--precision bfloat16]

For each a weight file is written, loaded as a released one is, and removed; every backbone and precision has
a process of its own. Clips have the model's own size and lie on the device beforehand: what is measured is
the pass. Passes through all blocks, passes that stop early and a large matrix product take turns, so whatever
slows the machine slows them alike, and their ratios stand. Loading is timed with libraries imported and the
file just written, so in the page cache. Files go to `--dir`: 15 GB for the largest (4ds_e), whose tensors
are drawn one by one; the others, 4.5 GB at most, are in memory once while they are written.
"""

import argparse
import json
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import save_file

from featcache.backbones import BACKBONES, load_backbone
from featcache.backbones.base import Backbone, Encoder, block_at_fraction
from featcache.backbones.encoder import PretrainedBackbone
from featcache.backbones.release import CONFIG_FILE
from featcache.backbones.sizes import VideoMAESize
from featcache.backbones.weights.checkpoint import Shapes
from featcache.backbones.weights.random import random_tensors
from featcache.spec import Layer
from featcache.system.device import choose_device, choose_precision, device_name, return_freed_buffers
from tests.benchmarks.peak_memory import status_of

T = TypeVar("T")

ON_CPU = (
    "resize", "dinov2_b", "dinov3_b", "videomae_random_b", "videomaev2_b", "4ds_b_dist_e", "videoprism_b",
)  # fmt: skip
"""What a CPU takes by default: the B sizes, of those families that have one."""

FRACTIONS = (0.1, 0.95)
"""Of the depth, where passes stop early, by the benchmark's formula."""

WARM_UPS = 2
MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
SECONDS_BETWEEN_SAMPLES = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Depth:
    """Passes that end after one block."""

    block: int
    n_blocks: int
    seconds: list[float]
    """Of every pass, a batch each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One backbone in one precision."""

    backbone: str
    precision: str
    device: str
    threads: int
    batch: int
    gflop: float | None
    """10^9 operations a clip, as the catalogue counts them; 0 or none for what is no model."""
    load_seconds: float
    peak_mb: float
    """10^6 bytes while loading the whole model and in its first passes: what torch allocated on a GPU, on a
    CPU what the process did (RssAnon, libraries included)."""
    matmul_tflops: float
    """10^12 operations a second of the large matrix product, median."""
    full: Depth
    early: list[Depth]
    """At `FRACTIONS`; none for a backbone without blocks."""

    @property
    def ms_per_clip(self) -> float:
        """Of a pass through all blocks, median."""
        return 1e3 * median(self.full.seconds) / self.batch

    @property
    def share(self) -> float | None:
        """Of the matrix product's speed that a whole pass reaches."""
        return None if not self.gflop else self.gflop / self.ms_per_clip / self.matmul_tflops


def released_shapes(name: str) -> Shapes:
    """Every key that backbone `name` takes from a released file; none where it needs no file."""
    backbone = load_backbone(name)
    if BACKBONES[name].release is None or not isinstance(backbone, PretrainedBackbone):
        return {}
    return backbone.key_map({}).shapes


def allow_random_weights(name: str) -> None:
    """Let a registered model be loaded, in this process, from a file that is not the released one."""
    model = BACKBONES[name]
    if model.release is not None:
        BACKBONES[name] = replace(model, release=replace(model.release, digests={}))


def write_weights(name: str, weights_dir: Path) -> Path | None:
    """The file of `name` with random numbers, and its config, where `load_backbone` looks for them."""
    shapes, release = released_shapes(name), BACKBONES[name].release
    if release is None:
        return None
    allow_random_weights(name)
    path = weights_dir / name / release.names[-1].removesuffix(".index.json")
    path.parent.mkdir(parents=True)
    if release.config:
        size = BACKBONES[name].size
        config = _videomae_config(size) if isinstance(size, VideoMAESize) else {}
        (path.parent / CONFIG_FILE).write_text(json.dumps(config))
    if path.suffix == ".npz":
        _write_npz(path, shapes)
    elif path.suffix == ".safetensors":
        save_file(random_tensors(shapes, seed=0), path)
    else:
        section = load_backbone(name).sections[0]  # type: ignore[attr-defined]
        torch.save({section: random_tensors(shapes, seed=0)}, path)
    return path


def _write_npz(path: Path, shapes: Shapes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for key, shape in shapes.items():
            (tensor,) = random_tensors({key: shape}, seed=0).values()
            with file.open(f"{key}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, tensor.numpy())


def _videomae_config(size: VideoMAESize) -> dict[str, object]:
    return {
        "model_type": "videomae",
        "image_size": size.input_size[0],
        "patch_size": size.patch[1],
        "num_frames": size.n_frames,
        "tubelet_size": size.patch[0],
        "hidden_size": size.block.width,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.block.heads,
        "intermediate_size": size.block.mlp,
        "layer_norm_eps": size.block.eps,
        "use_mean_pooling": not size.final_norm,
    }


def measured(
    name: str, weights_dir: Path, *, device: str, precision: str, batch: int, repeats: int, threads: int
) -> Measurement:
    """One backbone's numbers, in this process, whose memory should hold nothing else.

    Raises:
        RuntimeError: tokens that are no numbers; a pass of those is not the pass that was to be timed.
    """
    where = torch.device(device)
    dtype = choose_precision(precision, where)
    torch.set_num_threads(threads)
    return_freed_buffers()  # as an extraction does
    allow_random_weights(name)
    backbone = load_backbone(name, weights_dir)
    info, last = backbone.info, Layer(backbone.info.n_blocks)
    backbone.load((Layer(0),), where, dtype)  # imports what loading needs, and wakes the device
    pixels = torch.rand(batch, info.n_frames, 3, *info.input_size, device=where)

    def first_passes() -> tuple[Encoder, float]:
        load_seconds, whole = timed(lambda: backbone.load((last,), where, dtype), where)
        for _ in range(WARM_UPS):
            tokens = whole(pixels)[last]
        if not tokens.isfinite().all():
            raise RuntimeError(f"{name} in {precision}: random weights give tokens that are no numbers.")
        return whole, load_seconds

    (whole, load_seconds), peak_mb = with_peak(first_passes, where)
    blocks = [block_at_fraction(fraction, last.block) for fraction in FRACTIONS] if last.block else []
    encoders = [whole, *(_cut(backbone, block, pixels, dtype) for block in blocks)]
    side = MATRIX_SIDE[where.type]
    matrix = torch.randn(side, side, device=where).to(dtype)
    works: list[Callable[[], object]] = [lambda: matrix @ matrix, *(_pass(one, pixels) for one in encoders)]
    works[0]()
    rounds = [[timed(work, where)[0] for work in works] for _ in range(repeats)]
    products, full, *early = (list(seconds) for seconds in zip(*rounds, strict=True))
    return Measurement(
        backbone=name,
        precision=precision,
        device=device_name(where),
        threads=threads,
        batch=batch,
        gflop=info.gflop,
        load_seconds=load_seconds,
        peak_mb=peak_mb,
        matmul_tflops=2 * side**3 / median(products) / 1e12,
        full=Depth(block=last.block, n_blocks=last.block, seconds=full),
        early=[
            Depth(block=block, n_blocks=last.block, seconds=seconds)
            for block, seconds in zip(blocks, early, strict=True)
        ],
    )


def _cut(backbone: Backbone, block: int, pixels: torch.Tensor, dtype: torch.dtype) -> Encoder:
    encoder = backbone.load((Layer(block),), pixels.device, dtype)
    encoder(pixels)
    return encoder


def _pass(encoder: Encoder, pixels: torch.Tensor) -> Callable[[], object]:
    return lambda: encoder(pixels)


def timed(work: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Seconds until the device has done it, and what it gives."""
    _wait(device)
    start = perf_counter()
    result = work()
    _wait(device)
    return perf_counter() - start, result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def with_peak(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What `work` gives, and the MB that were allocated at the most meanwhile."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return work(), torch.cuda.max_memory_allocated(device) / 1e6
    samples, done = [status_of(os.getpid())["RssAnon"]], Event()

    def watch() -> None:
        while not done.wait(SECONDS_BETWEEN_SAMPLES):
            samples.append(status_of(os.getpid())["RssAnon"])

    watcher = Thread(target=watch)
    watcher.start()
    try:
        return work(), max(samples) / 1e6
    finally:
        done.set()
        watcher.join()


def table(measurements: Sequence[Measurement]) -> str:
    """Markdown: a row a backbone and precision; an early exit as its block, ms a clip, share of the whole."""
    lines = [
        "| backbone | precision | GFLOP a clip | ms a clip | clips a second | TFLOP/s | of matrix product "
        "| peak MB | load s | " + " | ".join(f"stops at {fraction}" for fraction in FRACTIONS) + " |",
        "|---|---|" + "---|" * (7 + len(FRACTIONS)),
    ]
    for one in measurements:
        cells = [
            one.backbone,
            one.precision,
            "-" if not one.gflop else f"{one.gflop:.0f}",
            _figures(one.ms_per_clip),
            _figures(1e3 / one.ms_per_clip),
            "-" if not one.gflop else _figures(one.gflop / one.ms_per_clip),
            "-" if one.share is None else f"{one.share:.0%}",
            f"{one.peak_mb:.0f}",
            f"{one.load_seconds:.2f}",
            *([_exit_cell(one, depth) for depth in one.early] or ["-"] * len(FRACTIONS)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _exit_cell(one: Measurement, depth: Depth) -> str:
    seconds = median(depth.seconds)
    share = seconds / median(one.full.seconds)
    return f"block {depth.block} of {depth.n_blocks}: {_figures(1e3 * seconds / one.batch)} ms, {share:.0%}"


def _figures(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def conditions(measurements: Sequence[Measurement]) -> str:
    """One line: where, how often, and what the matrix product reached."""
    first = measurements[0]
    reached = {
        precision: median(one.matmul_tflops for one in measurements if one.precision == precision)
        for precision in sorted({one.precision for one in measurements})
    }
    products = ", ".join(f"{tflops:.3g} TFLOP/s in {precision}" for precision, tflops in reached.items())
    return (
        f"{first.device}, torch {torch.__version__}, {first.threads} threads, batch {first.batch}, median of "
        f"{len(first.full.seconds)} passes; matrix product: {products}"
    )


def entry(one: Measurement) -> dict[str, object]:
    """A measurement for JSON, with what follows from it."""
    return {**asdict(one), "ms_per_clip": one.ms_per_clip, "share_of_matmul": one.share}


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print the table, write every number to `backbone_speed.json`."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--backbones", help="with commas; default: all on a GPU, the B sizes on a CPU")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; default: %(default)s")
    parser.add_argument("--precision", default="auto", help="with commas; default: %(default)s")
    parser.add_argument("--batch", type=int, help="clips a pass; default: 8 on a GPU, 1 on a CPU")
    parser.add_argument("--repeats", type=int, default=10, help="timed passes; default: %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    parser.add_argument("--dir", type=Path, default=Path("demo/backbones"), help="for files; %(default)s")
    given = parser.parse_args(words)
    device = choose_device(given.device)
    on_cpu = device.type == "cpu"
    names = given.backbones.split(",") if given.backbones else ON_CPU if on_cpu else BACKBONES
    batch = given.batch or (1 if on_cpu else 8)
    dtypes = [choose_precision(precision, device) for precision in given.precision.split(",")]
    precisions = [str(dtype).removeprefix("torch.") for dtype in dtypes]
    found: list[Measurement] = []
    given.dir.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as alone:
        for name in names:
            with TemporaryDirectory(dir=given.dir) as folder:
                write_weights(name, Path(folder))
                for precision in precisions:
                    job = alone.submit(
                        measured,
                        name,
                        Path(folder),
                        device=str(device),
                        precision=precision,
                        batch=batch,
                        repeats=given.repeats,
                        threads=given.threads,
                    )
                    found.append(job.result())
                    sys.stderr.write(f"{table(found[-1:]).splitlines()[-1]}\n")
            lines = json.dumps([entry(one) for one in found], indent=1)
            (given.dir / "backbone_speed.json").write_text(lines + "\n")
    sys.stdout.write(f"{conditions(found)}\n\n{table(found)}\n")


if __name__ == "__main__":
    main()
