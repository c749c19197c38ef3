"""How often an interval holds the truth, and how often equals are called clear, on simulated clips.

    python -m tests.benchmarks.coverage [--sets 300]

Clips of a cluster (a video, say) share half of what they are. The truth is the score of very many clusters.
Beside the interval over clusters stands the one that takes every clip for independent.

The second table is of two configurations of equal quality, whose clips and trainings are drawn anew in every
set: how often the verdict is `clear`, and how often it would be if seeds counted for nothing.
"""

import argparse
from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
from jaxtyping import Float64, Int64

from readouts.metrics.average_precision import ranked_precision, ranks_of
from readouts.metrics.base import Weights
from readouts.results.significance.bootstrap import Clusters, Resampled, WeightedScore, interval
from readouts.results.significance.differences import CLEAR, Trainings, difference

Drawn = tuple[WeightedScore, Int64[np.ndarray, " n"]]
"""A score of simulated clips, and the cluster of each."""

Draw = Callable[[np.random.Generator, int], Drawn]
"""Simulates the clips of so many clusters."""

N_CLUSTERS = (5, 10, 20, 30, 100)
MANY = 20_000
"""Clusters that the truth is taken from."""


def mean(rng: np.random.Generator, n_clusters: int) -> Drawn:
    """The mean of one number a clip: normal, with a share common to the clips of a cluster."""
    of_clip, shared = _clips(rng, n_clusters)
    values = shared + rng.normal(size=len(of_clip))
    return lambda weights: _average(values, weights), of_clip


def mean_average_precision(rng: np.random.Generator, n_clusters: int) -> Drawn:
    """Of three classes, the rarest of one clip in ten.

    Some clusters have more of a class, and outputs are off by as much in all clips of a cluster.
    """
    of_clip, _ = _clips(rng, n_clusters)
    often = np.array([-0.8, -1.7, -2.2]) + rng.normal(size=(n_clusters, 3))
    labels = rng.random((len(of_clip), 3)) < 1 / (1 + np.exp(-often[of_clip]))
    off = 0.6 * rng.normal(size=(n_clusters, 3))
    outputs = 1.5 * labels + off[of_clip] + rng.normal(size=labels.shape)
    ranks, classes = ranks_of(outputs), labels.astype(np.uint8)
    return lambda weights: float(ranked_precision(ranks, classes, weights).mean()), of_clip


def root_mean_square(rng: np.random.Generator, n_clusters: int) -> Drawn:
    """Of normal errors whose size is log-normal over clusters: some are twice as hard as others."""
    of_clip, shared = _clips(rng, n_clusters)
    squared = (np.exp(0.35 * shared) * rng.normal(size=len(of_clip))) ** 2
    return lambda weights: _average(squared, weights) ** 0.5, of_clip


def _average(values: Float64[np.ndarray, " n"], weights: Weights) -> float:
    return float(weights @ values / weights.sum())


def _clips(
    rng: np.random.Generator, n_clusters: int
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """The cluster of each clip, 4 to 13 of them a cluster; and something normal that they share."""
    of_clip = np.repeat(np.arange(n_clusters), rng.integers(4, 14, size=n_clusters))
    return of_clip, rng.normal(size=n_clusters)[of_clip]


SCORES: Mapping[str, Draw] = {"mean": mean, "mAP": mean_average_precision, "RMSE": root_mean_square}


def coverage(draw: Draw, n_clusters: int, *, n_sets: int, n: int = 300) -> tuple[float, float]:
    """Shares of data sets whose interval holds the truth: over clusters, and over clips."""
    rng = np.random.default_rng(n_clusters)
    score, of_clip = draw(np.random.default_rng(0), MANY)
    truth = score(np.ones(len(of_clip)))
    held = np.zeros(2)
    for seed in range(n_sets):
        score, of_clip = draw(rng, n_clusters)
        single = Clusters(of_clip=np.arange(len(of_clip)), kind="clips")
        for i, clusters in enumerate((Clusters(of_clip=of_clip, kind="videos"), single)):
            held[i] += truth in interval(score, clusters, n=n, seed=seed)
    over_clusters, over_clips = (held / n_sets).tolist()
    return over_clusters, over_clips


def called_clear(n_clusters: int, n_seeds: int, spread: float, *, n_sets: int) -> tuple[float, float]:
    """Shares of sets in which equals are called clear, and in which the interval of clips alone says so.

    Args:
        n_clusters: of one clip each.
        n_seeds: of each configuration.
        spread: of a configuration's score over seeds; over clusters the paired difference has 0.7.
        n_sets: simulated.
    """
    rng, clear = np.random.default_rng(n_clusters + n_seeds), np.zeros(2)
    for seed in range(n_sets):
        hard, trained = rng.normal(size=n_clusters), spread * rng.normal(size=(2, n_seeds))
        draws = np.random.default_rng(seed).integers(n_clusters, size=(300, n_clusters))
        sides = []
        for of_seed in trained:
            values = hard + 0.5 * rng.normal(size=n_clusters) + of_seed.mean()
            drawn = values[draws].mean(axis=1)
            sides.append(Resampled(value=values.mean(), drawn=drawn, n_clusters=n_clusters, kind="videos"))
        seeds = Trainings(first=trained[0].tolist(), second=trained[1].tolist())
        clear[0] += difference(*sides, seeds).verdict("test") == CLEAR
        clear[1] += difference(*sides).is_clear
    return tuple((clear / n_sets).tolist())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", type=int, default=300, help="simulated data sets a cell")
    n_sets = parser.parse_args().sets
    print("| Score | Clusters | Covers, of 95 % | Clips taken as independent |\n|---|---|---|---|")  # noqa: T201
    for name, draw in SCORES.items():
        for n_clusters in N_CLUSTERS:
            over_clusters, over_clips = coverage(draw, n_clusters, n_sets=n_sets)
            print(f"| {name} | {n_clusters} | {over_clusters:.1%} | {over_clips:.1%} |", flush=True)  # noqa: T201
    print("\n| Clusters | Seeds | Spread over seeds | Called clear | By clips alone |\n|---|---|---|---|---|")  # noqa: T201
    for n_clusters, n_seeds, spread in product((5, 20, 100), (1, 2, 3, 5), (0.0, 0.05, 0.2, 0.5)):
        with_seeds, alone = called_clear(n_clusters, n_seeds, spread, n_sets=n_sets)
        print(f"| {n_clusters} | {n_seeds} | {spread} | {with_seeds:.1%} | {alone:.1%} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
