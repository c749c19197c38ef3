from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from featcache.backbones import load_backbone
from featcache.data.readers import open_reader
from featcache.extract.job import plan_extraction
from featcache.extract.targets.builders import targets_of, write_split_targets
from featcache.manifest import Manifest, load_manifest
from featcache.store.targets import Targets, open_targets

Write = Callable[..., Targets]


def quiet(what: str, done: int, total: int) -> None: ...


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Targets of a role of a task, from a reader, or from the records of a folder."""

    def made(task: str, role: str, source: Any, manifest: Manifest | None = None) -> Targets:
        backbone = load_backbone("resize", None)
        job = plan_extraction(
            manifest or load_manifest(), task=task, role=role, backbone=backbone,
            layers=backbone.info.default_layers, n_views=1, seed=0, dtype=torch.float32,
        )  # fmt: skip
        reader = open_reader(job.dataset, job.split, source) if isinstance(source, Path) else source
        index = reader.scan().index
        truth = targets_of(job, index, reader)
        assert truth is not None
        name = write_split_targets(truth, index, tmp_path, role, quiet)
        return open_targets(tmp_path / name)

    return made
