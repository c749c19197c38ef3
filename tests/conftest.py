"""Fixtures shared by the whole suite.

Reference fixtures come by name pattern: files that are dropped into the folder later are run too. A test
marked `@pytest.mark.golden("readout_linear*")` runs once for every file of that pattern, which it gets as the
argument `golden`.
"""

import fcntl
import json
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from featcache.clips import Clip, ClipIndex
from featcache.fingerprint import fingerprint
from featcache.spec import Layer, TokenGrid
from featcache.store.feature_store import FeatureStore
from featcache.store.spec import FeatureSpec, TokenDtype
from featcache.store.target_writer import write_targets
from featcache.store.targets import TargetArray, Targets, open_targets
from featcache.store.writer import create_or_resume
from tests.loopback import ObjectStore

# Many small tensors, a worker a core: one thread is faster and makes sums repeatable. Children inherit it.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Processes that tests start, a worker among them, keep what they compile, whatever the environment says.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Tables are as wide as in a file, whatever a terminal, or who starts the workers, says.
os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden files and real samples, beside the checkout or named by SCIVID_SHARED."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SCIVID_SHARED", beside))
    if not (folder / "golden").is_dir():
        pytest.skip(
            f"no golden files at {folder}: set SCIVID_SHARED to the folder that holds golden/ and real/"
        )
    return folder


@pytest.fixture
def make_targets(tmp_path: Path) -> Callable[..., Targets]:
    """Writes arrays, or target arrays, as the targets of so many clips, and opens them."""

    def make(n_clips: int, folder: str = "targets", **arrays: np.ndarray | TargetArray) -> Targets:
        clips = ClipIndex.from_clips(
            Clip(id=str(i), source="s", record=i, n_source=1, digest="0" * 16) for i in range(n_clips)
        )
        return open_targets(write_targets(tmp_path / folder, clips, arrays, {}))

    return make


MakeSplit = Callable[..., FeatureStore]


@pytest.fixture
def make_split(make_split_in: MakeSplit, tmp_path: Path) -> MakeSplit:
    """Makes a finished store of given tokens and labels in `tmp_path/features`, as extraction would."""
    return partial(make_split_in, tmp_path / "features")


@pytest.fixture(scope="session")
def make_split_in() -> MakeSplit:
    """The same in a cache folder of one's own."""

    def make(
        cache: Path,
        role: str,
        tokens: np.ndarray,
        labels: np.ndarray,
        *,
        task: str = "flyvsfly",
        backbone: str = "toy",
        seed: int = 0,
        skipped: Mapping[int, str] = MappingProxyType({}),
        dtype: TokenDtype = "float16",
        deeper: Mapping[int | Layer, np.ndarray] = MappingProxyType({}),
        model: str | None = None,
        **attrs: object,
    ) -> FeatureStore:
        of_layers = {Layer(1): tokens}
        for at, of_layer in deeper.items():
            of_layers[at if isinstance(at, Layer) else Layer(at)] = of_layer
        n_clips, n_views, steps, rows, columns, channels = tokens.shape
        clips = [
            Clip(
                id=f"{role}-{i}",
                source=f"{role}.bin",
                record=i,
                n_source=16,
                labels=tuple(np.flatnonzero(row).tolist()),
                digest=blake2b(f"{role} {i}".encode(), digest_size=8).hexdigest(),
            )
            for i, row in enumerate(labels)
        ]
        index = ClipIndex.from_clips(clips)
        grid = TokenGrid(steps=steps, rows=rows, columns=columns, channels=channels)
        spec = FeatureSpec(
            grid=grid,
            layers=tuple(of_layers),
            n_clips=n_clips,
            n_views=n_views,
            clips_per_shard=max(1, n_clips // 3),
            dtype=dtype,
        )
        folder = cache / task / role
        targets = write_targets(folder, index, {"labels": labels.astype(np.uint8)}, {"clips": index.digest})
        parts = {
            "backbone": {"name": model or backbone, "seed": seed},
            "clips": index.digest,
            "views": n_views,
        }
        parts |= {} if dtype == "float16" else {"tokens": {"dtype": dtype}}
        about = {
            "task": task, "role": role, "backbone": backbone, "backbone_title": "a toy", "control": None,
            "licence": "none", "exactness": "exact", "upsampling": "linear", "readout_steps": 2 * steps,
            "targets": targets.name, **attrs,
        }  # fmt: skip
        path = folder / f"{backbone}-{fingerprint(parts)[:8]}.zarr"
        with create_or_resume(
            path, spec=spec, parts=parts, clips=index, provenance={}, attrs=about
        ) as writer:
            for shard in writer.todo():
                chosen = spec.rows_of_shard(shard)
                bad = {clip: reason for clip, reason in skipped.items() if clip in chosen}
                of_shard = {
                    layer: of_layer[chosen.start : chosen.stop].astype(np.float32)
                    for layer, of_layer in of_layers.items()
                }
                writer.write_shard(shard, of_shard, bad)
            return writer.finish()

    return make


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the smallest generated fly and mouse sets, in the official layout; for reading only.

    Made once by whichever worker comes first: workers have folders of their own in one of the whole run.
    """
    from featcache import synthetic

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tiny_data"
    folder.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("flyvsfly", "calms21"):
            synthetic.generate(name, folder, profile="tiny", seed=0)
    return folder


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A server of S3 on this machine."""
    server = ObjectStore(tmp_path_factory.mktemp("buckets"))
    yield server
    server.close()


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a bucket of this test's own, which is `s3://<name of the folder>` to this process."""
    folder = object_store.root / f"b{uuid.uuid4().hex}"
    folder.mkdir()
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SCIVID_READ_CACHE", str(tmp_path / "reads"))
    monkeypatch.setenv("SCIVID_FETCHED", str(tmp_path / "fetched"))
    return folder


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One fixture of the reference: its arrays, and the json beside them."""

    name: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays below `prefix`, by what follows it."""
        return {key.removeprefix(prefix): a for key, a in self.arrays.items() if key.startswith(prefix)}

    @property
    def optax(self) -> dict[str, float]:
        """The numbers of the resolved optax chain, read from its printed form; absent parts are left out."""
        text = self.meta["module_kwargs"]["optimizer"]
        return {name: float(number) for name, number in re.findall(r"(\w+)[=(]([-+.e\d]+)[,)\n]", text)}


def _folder() -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared"
    return Path(os.environ.get("SCIVID_SHARED", beside)) / "golden" / "reference"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "golden(*patterns): run once for every reference fixture so named")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Among several workers the longest come first, so that none is waited for at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("golden")
    if mark is not None:
        files = sorted({file for pattern in mark.args for file in _folder().glob(f"{pattern}.npz")})
        metafunc.parametrize("golden", files, ids=[file.stem for file in files], indirect=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    file: Path = request.param
    with np.load(file, allow_pickle=False) as arrays:
        return Golden(
            name=file.stem,
            meta=json.loads(file.with_suffix(".json").read_text()),
            arrays={key: arrays[key] for key in arrays.files},
        )
