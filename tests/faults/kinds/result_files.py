"""Kinds of files of stage two: the table, what is in a run's folder, certificates, caches of the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults.kinds.base import Kind
from tests.faults.world import TASK, World, train

Numbers = Mapping[str, Any]
TIMES = ("finished", "seconds", "together", "software")
ROLES = ("val", "test")
SHOWN = (0, 2)
"""Clips of val that the page of the world shows."""


def timeless(rows: Any) -> list[dict[str, Any]]:
    """Rows of the table without what is another one each time."""
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def table(world: World, _: Path) -> Numbers:
    """As report, compare and sweep read the table."""
    from readouts.results.table import load_results

    return {"rows": load_results(world.results)}


def went_on(world: World, _: Path) -> Numbers:
    """As the same `train-readout` goes on after a kill."""
    rows = train(world, "killed", test=False, seed=1)
    return {"rows": timeless(rows), "curve": (_folder(world, "killed") / "history.jsonl").read_bytes()}


def scored_later(world: World, _: Path) -> Numbers:
    """As `train-readout --test` scores weights that were trained before."""
    rows = train(world, "half", test=True)
    return {"rows": timeless(rows), "curve": (_folder(world, "half") / "history.jsonl").read_bytes()}


def _folder(world: World, results: str) -> Path:
    (folder,) = (world.root / results / TASK).glob("small_clips-*")
    return folder


def loaded(_: World, damaged: Path) -> Numbers:
    """As `predict` and `readouts.load_run` take a run that has ended."""
    from readouts.tuning.loaded import load_run

    run = load_run(damaged.parent)
    weights = {name: tensor.numpy() for name, tensor in run.heads.state_dict().items()}
    return {**weights, "decisions": run.decisions, "gives": run.gives, "reads": run.reads.to_json()}


def part(_: World, damaged: Path) -> Numbers:
    """As tables are made of it."""
    from readouts.predict.parts import VideoPart

    found = VideoPart(damaged)
    return {
        "of": [found.video, str(found.rate), *found.names, found.begins],
        "scores": [block.scores for block in found.blocks()],
    }


def curve(world: World, damaged: Path) -> Numbers:
    """As the report draws it."""
    from readouts.results.run_folder import read_whole_curve
    from readouts.results.table import run_rows

    (row, *_) = run_rows(world.results, damaged.parent.name.rpartition("-")[2])
    return {"points": read_whole_curve(damaged, row["steps"])}


def predictions(world: World, damaged: Path) -> Numbers:
    """As the figures of a task show them."""
    from readouts.results.per_clip import read_predictions
    from readouts.results.run_folder import RunFolder

    role = damaged.stem.removeprefix("predictions_")
    clips, outputs = read_predictions(RunFolder(damaged.parent), role)
    return {"clips": clips.select(["clip", "id"]), **outputs}


def per_clip(world: World, damaged: Path) -> Numbers:
    """As intervals and differences are computed."""
    from readouts.results.per_clip import load_per_clip
    from readouts.results.table import load_results

    found = {}
    for row in load_results(world.results):
        for role in ROLES:
            if row[role] is not None:
                found[f"{row['run']} {row['readout']} {role}"] = load_per_clip(world.results, row, role)
    return found


def certificate(world: World, damaged: Path) -> Numbers:
    """As the report shows it."""
    from readouts.certify.certificate import read_certificate

    return {"certificate": read_certificate(damaged.parent)}


def sweeps(world: World, _: Path) -> Numbers:
    """As the report finds which runs are of one sweep."""
    from readouts.sweeps.run import known_sweeps

    known, damaged = known_sweeps(world.results)
    if damaged:
        raise damaged[0]
    return {"sweeps": known}


def _results(world: World) -> Any:
    from featcache.manifest import load_manifest
    from readouts.results.task_results import finished_stores, load_task_results

    stores, problems = finished_stores(world.features)
    assert not problems
    (results,), damaged = load_task_results(world.results, stores, load_manifest())
    assert not damaged
    return results


def baselines(world: World, _: Path) -> Numbers:
    """As the report compares with them."""
    return _results(world).baselines


def intervals(world: World, _: Path) -> Numbers:
    """As the report prints them."""
    results = _results(world)
    return {"best": results.interval(results.best.rows, "val")}


def tokens(world: World, _: Path) -> Numbers:
    """As the report draws and measures them."""
    from readouts.report.token_figures import token_figures

    (store,) = (one for one in _results(world).stores if one.attrs["role"] == "val")
    return {"layers": token_figures(store, SHOWN, world.results)}


def grids(_: World, damaged: Path) -> Numbers:
    """As `sweep --file` reads them."""
    from readouts.sweeps.grid import read_grids

    return {"grids": [dict(grid) for grid in read_grids(damaged)]}


_TEXT = {"*": "a user's own text: another letter is another wish"}
_RUNS = f"results/{TASK}/small_clips-*"
_CERTIFIED = f"features/{TASK}/train/small_clips-*.zarr/certificate.json"

_NEVER_MADE = dict.fromkeys(("missing", "dangling", "loop"), "one that was never made")
_NOT_ENDED = dict.fromkeys(("missing", "dangling", "loop"), "a run that has not ended: it is trained")
KINDS = (
    Kind(
        name="results table",
        files=("results/results.parquet/*.parquet",),
        read=table,
        folders=("results",),
        allowed=_NOT_ENDED,
        weight=2,
    ),
    Kind(
        name="checkpoint, gone on from",
        files=(f"killed/{TASK}/*/last.safetensors",),
        read=went_on,
        folders=("features", "killed", "half"),
        peers=(f"half/{TASK}/*/last.safetensors",),
        weight=2,
    ),
    Kind(
        name="checkpoint, scored later",
        files=(f"half/{TASK}/*/last.safetensors",),
        read=scored_later,
        folders=("features", "killed", "half"),
        peers=(f"killed/{TASK}/*/last.safetensors",),
        weight=3,
    ),
    Kind(
        name="checkpoint, loaded",
        files=(f"{_RUNS}/last.safetensors",),
        read=loaded,
        folders=("results",),
    ),
    Kind(name="scores of a video", files=("results/parts/*.parquet",), read=part, folders=("results",)),
    Kind(
        name="curve, gone on from",
        files=(f"killed/{TASK}/*/history.jsonl",),
        read=went_on,
        folders=("features", "killed", "half"),
        peers=(f"half/{TASK}/*/history.jsonl",),
        weight=2,
    ),
    Kind(
        name="curve, reported", files=(f"{_RUNS}/history.jsonl",), read=curve, folders=("results",), weight=2
    ),
    Kind(
        name="results table, scored later",
        files=("half/results.parquet/*.parquet",),
        read=scored_later,
        folders=("features", "half", "results"),
        peers=("results/results.parquet/*.parquet",),
    ),
    Kind(
        name="predictions",
        files=(f"{_RUNS}/predictions_*.parquet",),
        read=predictions,
        folders=("results",),
        weight=2,
    ),
    Kind(
        name="per-clip statistics",
        files=(f"{_RUNS}/evidence_*.npz",),
        read=per_clip,
        folders=("results",),
        weight=2,
    ),
    Kind(
        name="certificate",
        files=(_CERTIFIED,),
        read=certificate,
        folders=("features",),
        allowed=_NEVER_MADE,
        weight=2,
    ),
    Kind(name="sweep record", files=("results/sweeps/*/sweep.json",), read=sweeps, folders=("results",)),
    Kind(name="grid file", files=("results/grids.yaml",), read=grids, folders=("results",), allowed=_TEXT),
    Kind(
        name="baselines cache",
        files=(f"results/{TASK}/baselines.json",),
        read=baselines,
        folders=("features", "results"),
    ),
    Kind(
        name="intervals cache",
        files=(f"results/{TASK}/intervals.json",),
        read=intervals,
        folders=("features", "results"),
    ),
    Kind(
        name="token figures cache",
        files=("results/token_figures/*.json",),
        read=tokens,
        folders=("features", "results"),
    ),
)
