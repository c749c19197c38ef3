"""The extraction measurement runs, and its paced model goes the whole way; times are for `make bench`."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from featcache.backbones import load_backbone
from featcache.store.feature_store import find_stores
from tests.benchmarks import extraction


def test_it_runs_on_small_sizes() -> None:
    claims = extraction.measure(small=True)
    assert {claim.group for claim in claims} == {"extraction"}
    assert all(claim.ratio > 0 for claim in claims)


def test_the_paced_model_goes_the_whole_way(tiny_data: Path, tmp_path: Path) -> None:
    paced = extraction.Paced(load_backbone("resize"), 0.0)
    work = replace(extraction._work("flyvsfly", "val", tiny_data, paced), cache_dir=tmp_path)
    work.extract()
    (store,) = find_stores(tmp_path)
    assert store.complete
    assert not np.any(store.read(range(store.spec.n_clips)))
