"""Seconds of a page: intervals at the size of CalMS21's test, and a table of 2,000 rows.

    python -m tests.benchmarks.report_speed [--clips 262000] [--rows 2000]

Intervals: 2,000 resamples of the mean average precision of four classes, over 19 videos and over single
clips; beside them the time of scoring each resample by itself, from a few. The page: of rows that differ in
rate and seed, each with its own statistics, written twice; what was resampled is kept for the second time.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch

import cli
from featcache import synthetic
from featcache.manifest import load_manifest
from readouts.report.page import write_report
from readouts.results.per_clip import load_per_clip, write_per_clip
from readouts.results.run_folder import RunFolder
from readouts.results.significance.bootstrap import Clusters, MeanScore, resampled
from readouts.results.table import add_run, load_results
from readouts.tasks import load_task

TASK, CLASSES = "calms21", 4
SHARES = np.array([0.3, 0.03, 0.06, 0.6])
"""Of the clips that have each class."""
N_VIDEOS, ONE_BY_ONE = 19, 10
SEEDS = 5


def intervals(n_clips: int) -> list[tuple[str, float, float]]:
    """What was drawn, seconds of 2,000 resamples, and of as many that are scored one by one."""
    task, rng = load_task(TASK, load_manifest()), np.random.default_rng(0)
    labels = (rng.random((n_clips, CLASSES)) < SHARES).astype(np.uint8)
    outputs = torch.from_numpy((labels + rng.normal(size=labels.shape)).astype(np.float32))
    per_clip = task.join([task.per_clip(outputs, {"labels": torch.from_numpy(labels)})])
    found = []
    for kind, of_clip in (
        ("videos", np.arange(n_clips) * N_VIDEOS // n_clips),
        ("clips", np.arange(n_clips)),
    ):
        clusters = Clusters(of_clip=of_clip.astype(np.int64), kind=kind)
        started = perf_counter()
        resampled(MeanScore(task, [per_clip]), clusters)
        at_once = perf_counter() - started
        started = perf_counter()
        resampled(lambda weights: task.scores(per_clip, weights)[task.score], clusters, n=ONE_BY_ONE)
        found.append((f"{len(clusters):,} {kind}", at_once, (perf_counter() - started) * 2000 / ONE_BY_ONE))
    return found


def page(n_rows: int, folder: Path) -> tuple[float, float, float]:
    """Seconds of a page of so many rows, of the same again, and its megabytes."""
    data, cache, results = folder / "data", folder / "features", folder / "results"
    synthetic.generate(TASK, data, profile={"train": 8, "val": 60, "test": 0})
    cli.extract(backbone="resize", task=TASK, split="train,val", data_dir=data, cache_dir=cache)
    settings = ["steps=1"]
    cli.train_readout(
        backbone="resize", task=TASK, readout="linear", set_=settings, cache_dir=cache, results_dir=results
    )
    (row,) = load_results(results)
    clips, per_clip = load_per_clip(results, row, "val")
    task, rng = load_task(TASK, load_manifest()), np.random.default_rng(0)
    for number in range(n_rows - 1):
        scattered = {**per_clip, "ranks": rng.permuted(per_clip["ranks"], axis=0)}
        recipe = {**json.loads(row["recipe"]), "lr": 1e-5 * (1 + number // SEEDS)}
        other = row | {
            "run": f"{number:012x}", "seed": number % SEEDS, "recipe": json.dumps(recipe),
            "val": task.scores(scattered)[task.score],
        }  # fmt: skip
        RunFolder.of(results, other).path.mkdir()
        write_per_clip(RunFolder.of(results, other), "val", clips, {"linear": scattered})
        add_run(results, other["run"], [other])
    seconds = []
    for _ in range(2):
        started = perf_counter()
        write_report(folder / "page.html", results_dir=results, cache_dir=cache, manifest=load_manifest())
        seconds.append(perf_counter() - started)
    return seconds[0], seconds[1], (folder / "page.html").stat().st_size / 1e6


def main(arguments: list[str]) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, default=262_000)
    parser.add_argument("--rows", type=int, default=2_000)
    given = parser.parse_args(arguments)
    lines = ["| Drawn again | Seconds of 2,000 | Scored one by one |", "|---|--:|--:|"]
    lines += [f"| {what} | {at_once:.1f} | {alone:.0f} |" for what, at_once, alone in intervals(given.clips)]
    with TemporaryDirectory() as folder:
        first, again, megabytes = page(given.rows, Path(folder))
    lines += ["", "| Rows | Seconds | Again | MB |", "|--:|--:|--:|--:|"]
    lines += [f"| {given.rows:,} | {first:.1f} | {again:.1f} | {megabytes:.1f} |"]
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
