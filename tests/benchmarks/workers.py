"""Two Dask workers of this machine against one: an extraction by a model that takes a given time a pass.

The model computes nothing, as a GPU that is busy leaves this machine idle: so two workers on two cores are no
rivals for them. The clusters are begun, and have the model loaded, before anything is timed.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

import torch

from featcache import synthetic
from featcache.backbones import load_backbone
from featcache.extract.job import plan_extraction
from featcache.extract.run import Machine, extract_all
from featcache.extract.workers.remote import Source, extract_on_workers
from featcache.manifest import load_manifest
from featcache.system.cluster.client import Cluster, Where, open_cluster
from featcache.system.console import silent
from tests.benchmarks.side_by_side import Claim, claim, in_turn

GROUP = "workers"
BATCH, PASSES_A_SHARD = 4, 4

MODEL = """
import time

import torch

from featcache.backbones.base import BackboneInfo, preprocessing
from featcache.spec import Layer, TokenGrid


class Paced:
    info = BackboneInfo(
        name="paced", title="paced", source="here", licence="none", commercial=True, public=True,
        params_m=0.0, n_blocks=0, input_size=(28, 28),
        grid=TokenGrid(steps=16, rows=2, columns=2, channels=64), default_layers=(Layer(0),),
        final_norm=False,
    )
    def weights_digest(self): return "none"
    def architecture(self): return {}
    def preprocessing(self): return preprocessing(self.info)
    def load(self, layers, device, dtype):
        tokens = torch.zeros(1, *self.info.grid.shape)
        def encode(pixels):
            time.sleep(PACE)
            return dict.fromkeys(layers, tokens.expand(len(pixels), -1, -1, -1, -1))
        return encode


BACKBONE = Paced()
"""


def measure(small: bool) -> list[Claim]:
    """One worker over two, and one worker over the process itself."""
    n_shards, pace = (2, 0.02) if small else (24, 0.25)
    with TemporaryDirectory() as folder, ExitStack() as clusters:
        root = Path(folder)
        n_clips = n_shards * BATCH * PASSES_A_SHARD
        synthetic.generate("flyvsfly", root / "data", profile={"train": n_clips}, seed=0)
        model = root / "paced_model.py"
        model.write_text(MODEL.replace("PACE)", f"{pace})"))
        rivals: dict[str, Callable[[], None]] = {"no worker": _extraction(root, model, None)}
        for n, name in ((1, "one worker"), (2, "two workers")):
            cluster = clusters.enter_context(
                open_cluster(
                    Where(local_workers=n), on_gpu=False, folders=[root / f"cache{n}"], say=lambda line: None
                )
            )
            rivals[name] = _extraction(root, model, cluster, root / f"cache{n}")
        times = in_turn(rivals, rounds=1 if small else 3, warm_up=0 if small else 1)
    detail = f"{n_shards} shards of {PASSES_A_SHARD} passes of {pace} s"
    return [
        claim(
            times, group=GROUP, what="one local Dask worker over two: wall time", over="one worker",
            under="two workers", target=1.8, detail=detail,
        ),
        claim(
            times, group=GROUP, what="one local Dask worker over no worker: wall time", over="one worker",
            under="no worker",
        ),
    ]  # fmt: skip


def _extraction(
    root: Path, model: Path, cluster: Cluster | None, cache: Path | None = None
) -> Callable[[], None]:
    """One whole extraction into a cache that is empty."""
    cache = cache or root / "cache0"
    named = f"{model}:BACKBONE"
    backbone = load_backbone(named, None)
    job = plan_extraction(
        load_manifest(), task="flyvsfly", role="train", backbone=backbone,
        layers=backbone.info.default_layers, n_views=1, seed=0, dtype=torch.float32,
    )  # fmt: skip
    shard = BATCH * PASSES_A_SHARD * backbone.info.grid.nbytes
    machine = Machine(device=torch.device("cpu"), batch=BATCH, shard_bytes=shard)
    source = Source.of(named, data_dir=root / "data", cache_dir=cache, weights_dir=None, manifest_file=None)

    def extract() -> None:
        rmtree(cache / "flyvsfly", ignore_errors=True)
        if cluster is None:
            stores = extract_all([job], machine, data_dir=root / "data", cache_dir=cache)
        else:
            stores = extract_on_workers(
                [job], machine, cluster, source, skip_bad=False, force=False, progress=silent,
                say=lambda line: None,
            )  # fmt: skip
        (store,) = stores
        assert store.spec.n_shards == store.spec.n_clips // (BATCH * PASSES_A_SHARD)

    return extract
