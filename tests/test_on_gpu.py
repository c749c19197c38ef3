"""Extraction and certificate on a GPU, the same code on a CPU: tokens, the same bits again, the verdict."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend

from featcache.backbones import load_backbone
from featcache.backbones.base import Backbone, Encoder
from featcache.extract.job import Extraction, plan_extraction
from featcache.extract.run import Machine
from featcache.manifest import load_manifest
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore
from readouts.certify.compare import certify
from readouts.features.find import open_task_splits
from readouts.tasks import load_task
from readouts.training.settings import configure
from tests.featcache.one_split import extract

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
NAME = "videomae_random"


@dataclass(frozen=True)
class Watched:
    """A backbone that notes which attention kernel torch would take in each pass."""

    inner: Backbone
    kernels: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def load(self, layers: tuple[Layer, ...], device: torch.device, dtype: torch.dtype) -> Encoder:
        encoder, some = self.inner.load(layers, device, dtype), torch.rand(1, 1, 2, 8, device=device)

        def encode(pixels: torch.Tensor) -> dict[Layer, torch.Tensor]:
            self.kernels.append(torch._fused_sdp_choice(some, some, some))
            return encoder(pixels)

        return encode


def plan(role: str, dtype: torch.dtype = torch.float32) -> Extraction:
    backbone = load_backbone(NAME)
    return plan_extraction(
        load_manifest(), task="flyvsfly", role=role, backbone=backbone, layers=backbone.info.default_layers,
        n_views=1, seed=0, dtype=dtype,
    )  # fmt: skip


def few_clips_a_shard(device: torch.device) -> Machine:
    return Machine(device=device, batch=2, shard_bytes=2**19)


def shards_of(store: FeatureStore) -> dict[str, bytes]:
    return {
        str(path.relative_to(store.path)): path.read_bytes()
        for path in store.path.rglob("c.*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("device", "dtype", "off"),
    [
        (CPU, torch.float32, 1e-9),
        pytest.param(CUDA, torch.float32, 1e-3, marks=ON_GPU),
        pytest.param(CUDA, torch.bfloat16, 0.02, marks=ON_GPU),
    ],
    ids=["cpu", "cuda-float32", "cuda-bfloat16"],
)
def test_tokens_are_those_of_a_cpu_and_a_resumed_store_has_the_same_bits(
    device: torch.device, dtype: torch.dtype, off: float, tiny_data: Path, tmp_path: Path
) -> None:
    job, machine = plan("val", dtype), few_clips_a_shard(device)
    whole = extract(job, machine, data_dir=tiny_data, cache_dir=tmp_path / "whole")

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("extracting") and 2 * done >= total:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        extract(job, machine, data_dir=tiny_data, cache_dir=tmp_path / "stopped", progress=stop)
        pytest.fail("it was to be stopped")
    resumed = extract(job, replace(machine, batch=None), data_dir=tiny_data, cache_dir=tmp_path / "stopped")
    assert len(shards_of(whole)) > 2 and shards_of(resumed) == shards_of(whole)
    on_cpu = extract(plan("val"), few_clips_a_shard(CPU), data_dir=tiny_data, cache_dir=tmp_path / "cpu")
    clips = range(whole.spec.n_clips)
    found, wanted = (store.read(clips).astype(np.float32) for store in (whole, on_cpu))
    assert np.sqrt(((found - wanted) ** 2).mean()) < off * wanted.std()


@pytest.mark.parametrize("device", [CPU, pytest.param(CUDA, marks=ON_GPU)], ids=["cpu", "cuda"])
def test_a_store_that_was_made_there_stands_for_its_backbone_under_the_same_kernel(
    device: torch.device, tiny_data: Path, tmp_path: Path
) -> None:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    jobs = [plan(role, dtype) for role in ("train", "val")]
    machine = replace(few_clips_a_shard(device), attention_kernel="math")
    for job in jobs:
        extract(job, machine, data_dir=tiny_data, cache_dir=tmp_path)
    splits = open_task_splits(tmp_path, "flyvsfly", NAME, roles=("train", "val"))
    settings = ["steps=2", "batch=2", "warmup=1", "width=32", "heads=2"]
    task = load_task("flyvsfly", load_manifest())
    run = configure(task, splits, readouts=["attention"], settings=settings)
    watched = Watched(jobs[0].backbone)
    found = certify(
        run,
        watched,
        load_manifest(),
        data_dir=tiny_data,
        device=device,
        seeds=2,
        val_clips=2,
        batch=2,
    )
    assert found.findings.faithful, found.text
    assert watched.kernels and set(watched.kernels) == {SDPBackend.MATH.value}
    assert found.findings.precision == str(dtype).removeprefix("torch.")
