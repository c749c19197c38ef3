"""Rivals timed in turn, in one run: a claim is the median of ratios taken within a round.

A shared machine is faster in one minute than in the next. Rivals that take turns meet the same minutes, so
their ratio holds where their times do not. Where others use the machine all the time, `only_quiet_windows`
keeps a time only if they left it alone meanwhile.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch

WINDOW = 0.08
"""Seconds that a rival is called for in a quiet window: /proc/stat counts in hundredths."""

OTHERS_CORES = 0.25
"""Of how many cores other processes may have used at the most in a window that is kept."""

TRIES = 40
"""Windows that are tried for one that is quiet."""


class Times(dict[str, list[float]]):
    """Rival -> seconds of one call, a round each; and the processor's seconds in all threads."""

    def __init__(self, rivals: Mapping[str, object]) -> None:
        super().__init__({name: [] for name in rivals})
        self.cpu: dict[str, list[float]] = {name: [] for name in rivals}
        self.loud: dict[str, int] = dict.fromkeys(rivals, 0)
        """Rival -> windows that are not quiet though only quiet ones were asked for."""


_quiet_only = False


def only_quiet_windows() -> None:
    """From now on `in_turn` times windows in which other processes rest, and waits for such."""
    global _quiet_only
    _quiet_only = True


def in_turn(
    rivals: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 1,
    before: Callable[[], object] | None = None,
) -> Times:
    """Seconds of one call of every rival, `rounds` times, in another order each round.

    In one order a rival would always follow the same one, and find what that leaves behind. The
    first `warm_up` rounds are not counted, nor is what is done `before` every call.
    """
    names, times = list(rivals), Times(rivals)
    for number in range(warm_up + rounds):
        for name in np.random.default_rng(number).permutation(names).tolist():
            counted = number >= warm_up
            quiet = _quiet_only and counted
            seconds, cpu, is_quiet = _timed(rivals[name], before, quiet=quiet)
            if counted:
                times[name].append(seconds)
                times.cpu[name].append(cpu)
                times.loud[name] += quiet and not is_quiet
    return times


def _timed(
    call: Callable[[], object], before: Callable[[], object] | None, *, quiet: bool
) -> tuple[float, float, bool]:
    """Seconds of a call, the processor's, and whether the window was quiet: of `TRIES` the last if none."""
    for _ in range(TRIES if quiet else 1):
        if before is not None:
            before()
        busy, started, cpu, n_calls, seconds = _busy(), perf_counter(), process_time(), 0, 0.0
        while not n_calls or (quiet and before is None and seconds < WINDOW):
            call()
            _wait_for_gpu()
            n_calls, seconds = n_calls + 1, perf_counter() - started
        ours = process_time() - cpu
        is_quiet = _busy() - busy - ours < OTHERS_CORES * seconds
        if is_quiet:
            break
    return seconds / n_calls, ours / n_calls, is_quiet


def _busy() -> float:
    """Seconds that all cores together have worked since the machine began."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / 100


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
    times: Mapping[str, list[float]],
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
    if isinstance(times, Times):
        shown += f" (CPU {milliseconds(times.cpu[over]):,.1f}, {milliseconds(times.cpu[under]):,.1f})"
        if loud := times.loud[over] + times.loud[under]:
            shown += f", {loud} of {2 * len(times[over])} windows loud"
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
