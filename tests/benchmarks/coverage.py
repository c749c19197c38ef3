"""How often an interval of a score holds the truth, by number of independent units, on simulated clips.

    python -m tests.benchmarks.coverage [--sets 300]

Clips of a unit (a video, say) share half of what they are. The truth is the score of very many units. Beside
the interval over units stands the one that takes every clip for independent.
"""

import argparse
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float64, Int64

from readouts.metrics.average_precision import ranked_precision, ranks_of
from readouts.results.bootstrap import Units, interval

Evidence = Mapping[str, np.ndarray]
Drawn = tuple[dict[str, np.ndarray], Int64[np.ndarray, " n"]]
"""Evidence, and the unit of each clip."""

N_UNITS = (5, 10, 20, 30, 100)
MANY = 20_000
"""Units that the truth is taken from."""


class Mean:
    """The mean of one number a clip."""

    def draw(self, rng: np.random.Generator, n_units: int) -> Drawn:
        """Normal, with a share common to the clips of a unit."""
        of_clip, shared = _clips(rng, n_units)
        return {"values": shared + rng.normal(size=len(of_clip))}, of_clip

    def score_of(self, evidence: Evidence, weights: Float64[np.ndarray, " n"]) -> float:
        """Weighted."""
        return float(weights @ evidence["values"] / weights.sum())


class MeanAP:
    """Mean average precision of three classes, the rarest of one clip in ten."""

    def draw(self, rng: np.random.Generator, n_units: int) -> Drawn:
        """Some units have more of a class, and outputs are off by as much in all clips of a unit."""
        of_clip, _ = _clips(rng, n_units)
        often = np.array([-0.8, -1.7, -2.2]) + rng.normal(size=(n_units, 3))
        labels = rng.random((len(of_clip), 3)) < 1 / (1 + np.exp(-often[of_clip]))
        off = 0.6 * rng.normal(size=(n_units, 3))
        outputs = 1.5 * labels + off[of_clip] + rng.normal(size=labels.shape)
        return {"ranks": ranks_of(outputs), "labels": labels.astype(np.uint8)}, of_clip

    def score_of(self, evidence: Evidence, weights: Float64[np.ndarray, " n"]) -> float:
        """Over the three."""
        return float(ranked_precision(evidence["ranks"], evidence["labels"], weights).mean())


class RMSE:
    """Root mean squared error, some units being twice as hard as others."""

    def draw(self, rng: np.random.Generator, n_units: int) -> Drawn:
        """Normal errors, their size log-normal over units."""
        of_clip, shared = _clips(rng, n_units)
        return {"squared": (np.exp(0.35 * shared) * rng.normal(size=len(of_clip))) ** 2}, of_clip

    def score_of(self, evidence: Evidence, weights: Float64[np.ndarray, " n"]) -> float:
        """Weighted."""
        return float((weights @ evidence["squared"] / weights.sum()) ** 0.5)


def _clips(
    rng: np.random.Generator, n_units: int
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """The unit of each clip, 4 to 13 of them a unit; and something normal that they share."""
    of_clip = np.repeat(np.arange(n_units), rng.integers(4, 14, size=n_units))
    return of_clip, rng.normal(size=n_units)[of_clip]


SCORES: Mapping[str, Callable[[], Mean | MeanAP | RMSE]] = {"mean": Mean, "mAP": MeanAP, "RMSE": RMSE}


def coverage(score: Mean | MeanAP | RMSE, n_units: int, *, n_sets: int, n: int = 300) -> tuple[float, float]:
    """Shares of data sets whose interval holds the truth: over units, and over clips."""
    rng = np.random.default_rng(n_units)
    everything, of_clip = score.draw(np.random.default_rng(0), MANY)
    truth = score.score_of(everything, np.ones(len(of_clip)))
    held = np.zeros(2)
    for seed in range(n_sets):
        evidence, of_clip = score.draw(rng, n_units)
        single = Units(of_clip=np.arange(len(of_clip)), kind="clips")
        for i, units in enumerate((Units(of_clip=of_clip, kind="videos"), single)):
            held[i] += truth in interval(score, evidence, units, n=n, seed=seed)
    over_units, over_clips = (held / n_sets).tolist()
    return over_units, over_clips


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", type=int, default=300, help="simulated data sets a cell")
    n_sets = parser.parse_args().sets
    print("| Score | Units | Covers, of 95 % | Clips taken as independent |\n|---|---|---|---|")  # noqa: T201
    for name, score in SCORES.items():
        for n_units in N_UNITS:
            over_units, over_clips = coverage(score(), n_units, n_sets=n_sets)
            print(f"| {name} | {n_units} | {over_units:.1%} | {over_clips:.1%} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
