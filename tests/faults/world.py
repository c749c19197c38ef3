"""A small undisturbed world: data, stores, runs, caches and weights, of which every trial damages a copy.

The data are generated, the model is that of `tests/earlier`, everything is as small as its kind can be, and
written by the package itself: one file at least of every kind that it writes or reads.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featcache.backbones import load_backbone
from featcache.backbones.base import resolve_layers
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.run import Machine, extract_all
from featcache.manifest import load_manifest
from featcache.store.spec import TokenDtype
from featcache.synthetic import generate
from tests.tunable import write_model

TASK, ROLES = "typhoon", ("train", "val", "test")
MODEL = Path(__file__).parents[1] / "earlier" / "small_model.py"
SIZES = {"train": 4, "val": 4, "test": 3}
CPU = torch.device("cpu")
RECIPE = ("steps=12", "warmup=2", "minival_every=4", "val_every=4", "batch=4", "width=8", "heads=2")
READOUTS = ("linear", "attention")
KILLED_AT = 8
"""The step after whose checkpoint the half-trained run was killed."""


@dataclass(frozen=True)
class World:
    """Where everything is, in the undisturbed world or in a copy of some of its folders."""

    root: Path
    data: Path
    """The generated records: copies share them, for their index goes by inode and times."""

    def __getattr__(self, name: str) -> Path:
        # features, int8, frames, bundle, results, half, weights, ...: folders below the root.
        if name.startswith("_"):
            raise AttributeError(name)
        return self.root / name


def job(objects: str, role: str, *, dtype: TokenDtype = "float16", shuffled: bool = False) -> Extraction:
    """One split of the world's task through one of its models, CLIPS or FRAMES."""
    backbone = load_backbone(f"{MODEL}:{objects}", None)
    return plan_extraction(
        load_manifest(),
        task=TASK,
        role=role,
        backbone=backbone,
        layers=resolve_layers("default", backbone.info),
        n_views=1,
        seed=0,
        dtype=torch.float32,
        store_dtype=dtype,
        shuffle_frames=shuffled,
    )


def extract(world: World, folder: str, objects: str, roles: tuple[str, ...] = ROLES, **options: Any) -> None:
    """Stores of a model in a cache folder of the world, a clip a shard."""
    jobs = [job(objects, role, **options) for role in roles]
    shard = 1 if objects == "CLIPS" else 1600
    machine = Machine(device=CPU, batch=1, decode_threads=1, shard_bytes=shard)
    for store in extract_all(jobs, machine, data_dir=world.data, cache_dir=world.root / folder):
        assert store.complete


def build_data(world: World) -> None:
    generate("digital_typhoon", world.data, profile=SIZES, seed=0)


def build_stores(world: World) -> None:
    """A cache of a clip model, one with int8, one with distinct frames, one of shuffled frames."""
    extract(world, "features", "CLIPS")
    extract(world, "int8", "CLIPS", ("train", "val"), dtype="int8")
    extract(world, "frames", "FRAMES", ("train", "val"))
    extract(world, "shuffled", "CLIPS", ("train", "val"), shuffled=True)


def configured(world: World, *, seed: int = 0, test: bool = True, readouts: Any = READOUTS) -> Any:
    """A run over the stores of `features`."""
    from readouts.features.find import open_task_splits
    from readouts.tasks import load_task
    from readouts.training.settings import configure

    task = load_task(TASK, load_manifest())
    roles = ROLES if test else ROLES[:2]
    splits = open_task_splits(world.features, TASK, "small_clips", roles=roles)
    settings = RECIPE if readouts == READOUTS else ()
    return configure(task, splits, readouts=readouts, settings=settings, seed=seed)


def train(world: World, folder: str = "results", *, progress: Any = None, **options: Any) -> list[Any]:
    """Train a run into a results folder of the world; its rows."""
    from readouts.training.loop import train as train_run

    run = configured(world, **options)
    told = {} if progress is None else {"progress": progress}
    return train_run(run, results_dir=world.root / folder, device=CPU, command="scivid ...", **told)


def build_results(world: World) -> None:
    """Two runs with test, a probe, a certificate, a sweep; a run that waits for test, and a killed one."""
    for seed in (0, 1):
        train(world, seed=seed)
    train(world, readouts=["ridge"], test=False)
    train(world, "half", test=False)
    half_trained(world, "killed")
    certify(world)
    scivid_sweep(world)
    report(world)
    (world.results / "grids.yaml").write_text(GRIDS)
    predicted(world)


GRIDS = """
- task: typhoon
  backbone: [small_clips, resize]
  readout: linear
  lr: [1e-3, 3e-4]
  seed: [0, 1]
"""


def predicted(world: World) -> None:
    """What `scivid predict` keeps of a video until all are done."""
    from readouts.predict.frames import FrameScores
    from readouts.predict.parts import write_part

    scores = np.random.default_rng(0).random((40, 3), np.float32)
    blocks = [FrameScores(first=first, scores=scores[first : first + 16]) for first in (0, 16, 32)]
    for video in ("one", "two"):
        path = world.results / "parts" / f"{video}.parquet"
        write_part(path, blocks, ("a", "b", "c"), video=f"{video}.mp4", rate=Fraction(25))


class _KilledError(Exception):
    """Instead of a kill."""


def half_trained(world: World, folder: str, seed: int = 1) -> None:
    """A run that ended after a checkpoint, before its last step."""

    def stop(what: str, done: int, _: int) -> None:
        if what == "training" and done > KILLED_AT + 1:
            raise _KilledError

    try:
        train(world, folder, progress=stop, test=False, seed=seed)
    except _KilledError:
        return
    raise AssertionError("it was to be stopped")


def certify(world: World) -> None:
    from readouts.certify.compare import certify as run

    backbone = load_backbone(f"{MODEL}:CLIPS", None)
    run(
        configured(world, test=False), backbone, load_manifest(), data_dir=world.data, device=CPU,
        val_clips=2, command="scivid certify ...",
    )  # fmt: skip


def scivid_sweep(world: World) -> None:
    """By the command line, which keeps `sweep.json`."""
    command(world, "sweep", "--grid", sweep_grid(), "--name", "small", "--device", "cpu")


def sweep_grid() -> str:
    settings = " ".join(one for one in RECIPE if not one.startswith(("width", "heads")))
    return f"task={TASK} backbone=small_clips readout=linear lr=1e-3,1e-2 {settings}"


def report(world: World) -> None:
    command(world, "report", "--out", str(world.root / "page" / "report.html"))


FOLDERS = {
    "--data-dir": ("extract", "certify", "train-readout"),
    "--cache-dir": ("extract", "certify", "train-readout", "sweep", "report", "compare"),
    "--results-dir": ("train-readout", "sweep", "report", "compare", "predict"),
}


def command(world: World, name: str, *words: str) -> None:
    """A command in this process, on the folders of the world; leaves by SystemExit where it fails."""
    from cli import app

    at = {"--data-dir": world.data, "--cache-dir": world.features, "--results-dir": world.results}
    where = [
        word for option, takers in FOLDERS.items() if name in takers for word in (option, str(at[option]))
    ]
    try:
        app([name, *words, *where])
    except SystemExit as left:
        if left.code:
            raise


def of_tuning(world: World) -> World:
    """The world of a model that can be tuned: its file is in the root, all else as elsewhere."""
    return World(world.root / "tuned", world.data)


def build_tuned(world: World) -> None:
    """A model that can be tuned, and its tokens after the block that the two upper ones follow."""
    there = of_tuning(world)
    there.root.mkdir()
    command(there, "extract", "--backbone", write_model(there.root), "--task", TASK, "--layers", "1,3")


def build_earlier(world: World) -> None:
    """Stores of a version that did not seal them."""
    shutil.copytree(MODEL.parent / "features", world.earlier)


def build_bundle(world: World) -> None:
    """What `scivid export` makes of the cache of a clip model."""
    command(world, "export", str(world.features), str(world.bundle))


def build_weights(world: World) -> None:
    """A tiny model in every format: safetensors, several of them with an index, npz, torch pickle."""
    from safetensors.torch import save_file

    world.weights.mkdir()
    rng = torch.Generator().manual_seed(0)
    for name in WEIGHT_FILES:
        path = world.weights / name / WEIGHT_FILES[name]
        path.parent.mkdir()
        state = {
            key: torch.randn(s, generator=rng) / 4 for key, s in model_of(path).key_map({}).shapes.items()
        }
        if path.suffix == ".npz":
            np.savez(path, **{key: tensor.numpy() for key, tensor in state.items()})
        elif path.suffix == ".json":
            home = {key: f"model-{i % 2 + 1:05d}-of-00002.safetensors" for i, key in enumerate(state)}
            for file in set(home.values()):
                save_file({key: state[key] for key in state if home[key] == file}, path.with_name(file))
            path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": home}))
        elif path.suffix == ".tar":
            torch.save({"target_encoder": state, "epoch": 3, "lr": 1e-3}, path)
        else:
            save_file(state, path)
        # As at the first load: what is remembered of a file from then on is there.
        assert np.isfinite(outputs(path)["tokens"]).all()


WEIGHT_FILES = {
    "safetensors": "model.safetensors",
    "index": "model.safetensors.index.json",
    "npz": "scaling4d_x.npz",
    "pickle": "tiny.pth.tar",
}


def model_of(path: Path) -> Any:
    """A tiny model of the family that is released in a file's format."""
    from featcache.backbones.families.dinov2 import Dinov2
    from featcache.backbones.families.fourds import FourDS
    from featcache.backbones.families.vjepa import VJepa
    from featcache.backbones.model import vit_info
    from featcache.backbones.sizes import BlockSize, Dinov2Size, VideoViTSize

    if path.suffix in (".npz", ".tar"):
        family, kind = ("fourds", FourDS) if path.suffix == ".npz" else ("vjepa", VJepa)
        own: Mapping[str, Any] = {"gelu": "tanh", "final_norm": False} if family == "fourds" else {}
        size = VideoViTSize(
            block=BlockSize(width=12, heads=2, mlp=24), depth=2, patch=(2, 8, 8), input_size=(16, 16),
            n_frames=4, positions="stored", **own,
        )  # fmt: skip
        return kind(info=vit_info("tiny", family, size), size=size, file=lambda: path)
    block = BlockSize(width=16, heads=2, mlp=32, scaled=True)
    size = Dinov2Size(block=block, depth=2, patch=(1, 14, 14), input_size=(28, 28), table=2)
    return Dinov2(info=vit_info("dinov2_b", "dinov2", size), size=size, file=lambda: path)


def outputs(path: Path) -> dict[str, Any]:
    """What a weight file's model makes of noise, and the digest that becomes part of fingerprints."""
    model = model_of(path)
    digest, layer = model.weights_digest(), model.info.last_layer
    encode = model.load((layer,), CPU, torch.float32)
    n_frames = getattr(model.size, "n_frames", None) or model.info.n_frames
    pixels = torch.rand(1, n_frames, 3, *model.info.input_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return {"tokens": encode(pixels)[layer].numpy(), "digest": digest}


BUILDERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "data": (("data",), ()),
    "stores": (("features", "int8", "frames", "shuffled"), ("data",)),
    "results": (("results", "half", "killed"), ("data", "stores")),
    "bundle": (("bundle",), ("data", "stores")),
    "tuned": (("tuned",), ("data",)),
    "earlier": (("earlier",), ()),
    "weights": (("weights",), ()),
    "videos": (("videos",), ()),
    "weather": (("weather",), ()),
}
"""Part of the world -> its folders, and the parts that it is made from."""


def parts_of(folders: Iterable[str]) -> list[str]:
    """The parts that hold some folders (or patterns below them), with those that they are made from."""
    tops = {folder.partition("/")[0] for folder in folders}
    wanted = {name for name, (own, _) in BUILDERS.items() if tops & set(own)}
    wanted |= {one for name in wanted for one in BUILDERS[name][1]}
    return [name for name in BUILDERS if name in wanted]


def build(root: Path, parts: Sequence[str]) -> World:
    """Some parts of the world, in the order of `BUILDERS`."""
    from tests.faults.data_world import build_videos, build_weather

    world = World(root, root / "data")
    root.mkdir(parents=True, exist_ok=True)
    functions = {
        "data": build_data, "stores": build_stores, "results": build_results, "earlier": build_earlier,
        "bundle": build_bundle, "tuned": build_tuned,
        "weights": build_weights,
        "videos": build_videos, "weather": build_weather,
    }  # fmt: skip
    for name in parts:
        functions[name](world)
    return world


def copy(world: World, to: Path, *folders: str) -> World:
    """A copy of some folders (or patterns of files) of the world, which may be damaged.

    The data are shared unless they are named.
    """
    for pattern in folders:
        for path in world.root.glob(pattern):
            there = to / path.relative_to(world.root)
            if path.is_dir():
                shutil.copytree(path, there, symlinks=True)
            else:
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, there)
    return World(to, to / "data" if any(one.startswith("data") for one in folders) else world.data)
