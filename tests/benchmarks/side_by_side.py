"""Rivals timed in turn, in one run: a claim is the median of ratios taken within a round.

A shared machine is faster in one minute than in the next. Rivals that take turns meet the same minutes, so
their ratio holds where their times do not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch

Times = Mapping[str, list[float]]
"""Rival -> seconds of one call, a round each."""


def in_turn(rivals: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 1) -> Times:
    """Seconds of one call of every rival, `rounds` times; every round begins with another rival.

    The first `warm_up` rounds are not counted.
    """
    names = list(rivals)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warm_up + rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started = perf_counter()
            rivals[name]()
            _wait_for_gpu()
            if number >= warm_up:
                times[name].append(perf_counter() - started)
    return times


def _wait_for_gpu() -> None:
    """A GPU's calls return when they are queued, not when they are done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One line of the table: a ratio measured in one run, with what was asked of it."""

    group: str
    what: str
    ratio: float
    """Median over rounds."""
    low: float
    high: float
    """Quartiles over rounds."""
    target: float | None = None
    """The ratio asked for; None where a figure is given for comparison only."""
    at_least: bool = True
    """Whether the target is a lower bound."""
    detail: str = ""
    """The medians behind it, with units."""

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target


def claim(
    times: Times,
    *,
    group: str,
    what: str,
    over: str,
    under: str,
    target: float | None = None,
    at_least: bool = True,
    detail: str = "",
) -> Claim:
    """The ratio of `over`'s time to `under`'s, round by round."""
    ratios = np.asarray(times[over]) / np.asarray(times[under])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    shown = ", ".join(f"{name} {milliseconds(times[name]):,.1f} ms" for name in (over, under))
    return Claim(
        group=group,
        what=what,
        ratio=float(middle),
        low=float(low),
        high=float(high),
        target=target,
        at_least=at_least,
        detail=f"{shown}; {detail}" if detail else shown,
    )


def milliseconds(seconds: list[float]) -> float:
    """The median, in ms."""
    return 1e3 * float(np.median(seconds))
