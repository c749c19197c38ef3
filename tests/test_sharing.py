"""Another lab: exports served over HTTP, imported where there are no data and no weights, the same scores."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli import app
from featcache.sharing.golden import N_CLIPS
from featcache.store.feature_store import find_stores
from readouts.results.table import load_results
from tests.conftest import MakeSplit
from tests.featcache.conftest import flip
from tests.featcache.sharing.small_cache import tree
from tests.featcache.sharing.test_arrival import without_index
from tests.featcache.sharing.test_sources import serve
from tests.featcache.system.site import Page, Site
from tests.featcache.system.site import site as site

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ("--task", "flyvsfly", "--backbone", "toy", "--readout", "linear", "--device", "cpu", "--test")
SETTINGS = ("--set", "steps=8", "--set", "batch=8", "--set", "minival_every=4", "--set", "lr=1e-2")


def scivid(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def begin(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, words)]
    env, pipe = os.environ | {"no_proxy": "*"}, subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=env)


@pytest.fixture
def lab(tmp_path: Path, make_split_in: MakeSplit) -> Path:
    """A folder with `features`, three splits of a small task; and `bundle`, what is exported of them."""
    rng = np.random.default_rng(0)
    for role, n_clips in (("train", 24), ("val", 12), ("test", 12)):
        labels = np.eye(7, dtype=np.uint8)[rng.integers(0, 7, n_clips)]
        tokens = rng.normal(size=(n_clips, 2 if role == "train" else 1, 4, 3, 3, 16))
        tokens[..., :7] += labels[:, None, None, None, None]
        skipped = {3: "/home/alice/a.bin is cut short"} if role == "train" else {}
        make_split_in(tmp_path / "features", role, tokens, labels, skipped=skipped)
    code, said = scivid(
        "export", "--task", "flyvsfly", "--cache-dir", tmp_path / "features", tmp_path / "bundle"
    )
    assert code == 0, said
    assert f"{len(tree(tmp_path / 'bundle'))} files" in said.splitlines()[-1]
    return tmp_path


def scored(cache: Path, results: Path, *more: object) -> list[tuple[object, ...]]:
    """Run, scores and predictions of a training."""
    code, said = scivid(
        "train-readout", *TRAIN, *SETTINGS, *more, "--cache-dir", cache, "--results-dir", results
    )
    assert code == 0, said
    predictions = {name: content for name, content in tree(results).items() if "predictions" in name}
    return [(row["run"], row["val"], row["test"], predictions) for row in load_results(results)]


def test_another_lab_gets_the_same_scores(lab: Path, site: Site) -> None:
    code, said = scivid("import", serve(site, lab / "bundle"), "--cache-dir", lab / "elsewhere" / "features")
    assert code == 0 and said.splitlines()[-1].startswith("3 stores are new, ")
    theirs = scored(lab / "elsewhere" / "features", lab / "elsewhere" / "results")
    assert theirs == scored(lab / "features", lab / "results") and theirs[0][3]
    code, said = scivid("validate", lab / "elsewhere" / "features", "--golden", lab / "bundle")
    assert code == 0 and said.count(f"golden values: all {N_CLIPS} the same, bit for bit") == 3


def test_a_part_gives_the_scores_of_that_part(lab: Path) -> None:
    """One of two views: another run, for its store is another; to the bit the one that takes one view."""
    code, said = scivid(
        "export", lab / "features", lab / "part", "--views", 1, "--split", "train,val,test", "--layers", "1"
    )
    assert code == 0, said
    (of_part,) = scored(lab / "part", lab / "of part")
    (of_whole,) = scored(lab / "features", lab / "of whole", "--set", "train_views=1")
    assert of_part[0] != of_whole[0] and of_part[1:3] == of_whole[1:3]


def test_a_flipped_byte_is_told_by_name(lab: Path) -> None:
    name = next(name for name in tree(lab / "bundle") if name.endswith("c.1.0.0.0.0.0"))
    flip(lab / "bundle" / name, 100)
    code, said = scivid("import", lab / "bundle", "--cache-dir", lab / "cache")
    assert code == 1 and f"{lab / 'bundle' / name} is not what was exported" in said
    assert scivid("import", lab, "--cache-dir", lab / "cache")[0] == 2
    assert not find_stores(lab / "cache")
    assert scivid("list", "stores", "--cache-dir", lab / "cache") == (0, "no stores yet\n")


def test_a_killed_import_goes_on(lab: Path, site: Site) -> None:
    address, cache = serve(site, lab / "bundle"), lab / "cache"
    names = [path for path in site.pages if path.endswith("c.1.0.0.0.0.0")]
    pages = {name: site.pages[name] for name in names}
    hanging = names[-1]
    site.pages[hanging] = Page(content=pages[hanging].content, stop=1000, hang=True)
    with begin("import", address, "--cache-dir", cache) as process:
        deadline = time.monotonic() + 60
        while hanging not in [path for path, _ in site.asked]:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not find_stores(cache) and not [*cache.glob("flyvsfly/*")]
    site.pages[hanging] = pages[hanging]
    before = {path for path, _ in site.asked} - {hanging}
    site.asked.clear()
    assert scivid("import", address, "--cache-dir", cache)[0] == 0
    assert {path.rpartition("/")[2] for path, _ in site.asked if path in before} <= {"bundle.json"}
    assert tree(cache) == without_index(lab / "bundle")


def test_two_imports_at_once_are_one(lab: Path) -> None:
    cache = lab / "cache"
    both = [begin("import", lab / "bundle", "--cache-dir", cache) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    new = sorted(text.splitlines()[-1].partition(",")[0] for text in said)
    assert new == ["0 stores are new", "3 stores are new"]
    assert tree(cache) == without_index(lab / "bundle")


def test_calls_that_are_wrong(lab: Path) -> None:
    """One message each, and the exit code."""
    store = find_stores(lab / "features", "flyvsfly", "val")[0].path
    for words, code, message in (
        (["export", lab / "out"], 2, "name the stores and last the new folder"),
        (["export", store, lab / "out", "--layers", "0.5"], 2, "'0.5' is not a layer"),
        (["export", store, lab / "out", "--layers", "7"], 2, "--layers 7: "),
        (["export", store, lab / "out", "--split", "train"], 2, "nothing to export: no store of train"),
        (["export", store, lab / "bundle"], 1, "give the bundle another name"),
        (["export", lab / "nothing", lab / "out"], 1, "nothing is not there"),
        (["import", "s3://bucket/x"], 2, "bundles come from a folder, or from http"),
    ):
        found = scivid(*words)
        assert found[0] == code and message in found[1] and found[1].count("\n") == 1, (words, found)
    assert not (lab / "out").exists()
