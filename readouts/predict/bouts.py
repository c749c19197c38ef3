"""Bouts: stretches of frames whose score reaches a threshold; how many there are of each class, how long."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from readouts.predict.frames import FrameScores


@dataclass(frozen=True, kw_only=True, slots=True)
class Bout:
    """A stretch of a video in which a class is there."""

    output: int
    """Number of the class."""
    first: int
    stop: int
    """The frame after the last."""
    score: float
    """Mean over its frames."""


def bouts_of(blocks: Iterable[FrameScores], thresholds: Float[np.ndarray, " O"]) -> Iterator[Bout]:
    """The bouts of all classes, each when it ends; a class of threshold NaN has none."""
    begun: dict[int, tuple[int, float]] = {}
    end = 0
    for block in blocks:
        there = block.scores >= thresholds
        end = block.first + len(block.scores)
        for output in range(len(thresholds)):
            column, scores = there[:, output], block.scores[:, output]
            edges = np.flatnonzero(np.diff(column, prepend=output in begun, append=column[-1:]))
            cumulated = np.concatenate([[0.0], scores.cumsum(dtype=np.float64)])
            at = 0
            for edge in edges.tolist():
                if output in begun:
                    first, total = begun.pop(output)
                    stop = block.first + edge
                    yield Bout(
                        output=output, first=first, stop=stop,
                        score=(total + cumulated[edge] - cumulated[at]) / (stop - first),
                    )  # fmt: skip
                else:
                    begun[output], at = (block.first + edge, 0.0), edge
            if output in begun:
                first, total = begun[output]
                begun[output] = first, total + cumulated[-1] - cumulated[at]
    for output, (first, total) in sorted(begun.items()):
        yield Bout(output=output, first=first, stop=end, score=total / (end - first))


@dataclass(slots=True)
class Summary:
    """What a video shows of each class."""

    n: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, bouts: Iterable[Bout], n_outputs: int) -> "Summary":
        """Counted."""
        found = cls([0] * n_outputs, [0] * n_outputs)
        for bout in bouts:
            found.n[bout.output] += 1
            found.frames[bout.output] += bout.stop - bout.first
        return found

    def rows(self, video: str, names: Sequence[str], rate: float) -> list[dict[str, object]]:
        """A row a class: how often, how long in all, how long a bout is on average."""
        return [
            {
                "video": video,
                "class": name,
                "bouts": n,
                "seconds": round(frames / rate, 3),
                "mean bout": round(frames / rate / n, 3) if n else None,
            }
            for name, n, frames in zip(names, self.n, self.frames, strict=True)
        ]
