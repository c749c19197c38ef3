"""How often an interval of a score holds the truth, by number of independent clusters, on simulated clips.

    python -m tests.benchmarks.coverage [--sets 300]

Clips of a cluster (a video, say) share half of what they are. The truth is the score of very many clusters.
Beside the interval over clusters stands the one that takes every clip for independent.
"""

import argparse
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float64, Int64

from readouts.metrics.average_precision import ranked_precision, ranks_of
from readouts.metrics.base import Weights
from readouts.results.bootstrap import Clusters, WeightedScore, interval

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


if __name__ == "__main__":
    main()
