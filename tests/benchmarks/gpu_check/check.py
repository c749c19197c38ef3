"""One check: its device, its clock, and what was found, written to `gpu.json` after every line.

A part that fails is recorded and the rest goes on; each step has its share of the time, and what it does not
use is there for those after it.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Timer
from time import monotonic, perf_counter
from typing import Any

import torch

from tests.benchmarks.gpu_check.tables import markdown
from tests.benchmarks.side_by_side import Claim

GRACE = 5.0
"""Seconds beyond the budget after which a step that hangs is cut off."""

LINES_OF_A_FAILURE = 8


@dataclass(kw_only=True)
class Check:
    """What every step is given."""

    device: torch.device
    small: bool
    """Sizes that only show that it runs."""
    out: Path
    budget: float
    """Seconds in all."""
    begun: float = field(default_factory=monotonic)
    step: str = ""
    until: float = 0.0
    """Seconds after the beginning at which the step's share is used up."""
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Step -> what was found, by its name."""
    claims: list[Claim] = field(default_factory=list)
    """The ratios, those with a target among them."""

    @property
    def on_gpu(self) -> bool:
        """Whether there is a device that works by itself."""
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """What backbones compute in: bfloat16 on a GPU."""
        return torch.bfloat16 if self.on_gpu else torch.float32

    @property
    def peak_tflops(self) -> float | None:
        """10^12 operations a second of a large matrix product in that precision; None if not measured."""
        name = "bfloat16" if self.on_gpu else "float32"
        found: float | None = self.found.get("machine", {}).get(f"matrix product {name}, TFLOP/s")
        return found

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return monotonic() - self.begun

    def has(self, seconds: float) -> bool:
        """Whether the step's share has so many seconds left."""
        return self.small or self.until - self.seconds > seconds

    def run(self, name: str, work: Callable[["Check"], None], share: float) -> None:
        """One step, which may use `share` seconds and what the steps before it left."""
        self.step, self.until = name, min(self.budget, self.until + share)
        started = self.seconds
        self.say("begins")
        with self.guarded("the step"):
            work(self)
        self.note("seconds", round(self.seconds - started, 1))

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Record what goes wrong inside, and go on after it."""
        try:
            yield
        except Exception as problem:
            text = f"{type(problem).__name__}: {str(problem)[:600]}"
            where = traceback.format_exc().splitlines()[-LINES_OF_A_FAILURE:]
            self.note(f"FAILED {what}", {"problem": text, "where": where})
            if self.on_gpu:
                torch.cuda.empty_cache()

    def note(self, name: str, value: Any) -> None:
        """Keep what was found, on disk and on the screen."""
        self.found.setdefault(self.step, {})[name] = value
        self.say(name, value)
        self.write()

    def compare(
        self, what: str, ratio: float, *, target: float | None = None, at_least: bool = True, detail: str = ""
    ) -> None:
        """Keep a ratio; one with a target is what the check is for."""
        self.claims.append(
            Claim(
                group=self.step, what=what, ratio=ratio, low=ratio, high=ratio, target=target,
                at_least=at_least, detail=detail,
            )
        )  # fmt: skip
        self.write()

    def write(self) -> None:
        """`gpu.json` and `table.md`, whole at any moment."""
        self.out.mkdir(parents=True, exist_ok=True)
        claims = [
            {"what": f"{one.group}: {one.what}", "ratio": one.ratio, "target": one.target, "met": one.met}
            for one in self.claims
        ]
        document = {"device": str(self.device), "small": self.small, "seconds": round(self.seconds, 1),
                    "ratios": claims, "steps": self.found}  # fmt: skip
        for name, text in (
            ("gpu.json", json.dumps(document, indent=1, default=str)),
            ("table.md", markdown(self.claims, self.found)),
        ):
            draft = self.out / f".{name}"
            draft.write_text(text + "\n")
            draft.replace(self.out / name)

    def say(self, *words: object) -> None:
        """A line for whoever watches."""
        sys.stdout.write(f"[{self.seconds:6.1f} s] {self.step}: {' '.join(map(str, words))}\n")
        sys.stdout.flush()

    @property
    def failures(self) -> list[str]:
        """What was recorded as failed."""
        return [f"{step}: {name}" for step, of in self.found.items() for name in of if "FAILED" in name]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End the process where a step hangs beyond the budget; what was found is on disk."""

        def cut_off() -> None:
            self.note("FAILED within the budget", {"problem": f"cut off after {self.budget:.0f} s"})
            os._exit(3)

        timer = Timer(self.budget + GRACE, cut_off)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def wait(self) -> None:
        """Until the device has done what was asked of it."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def each_ms(self, work: Callable[[], object], *, n: int = 10, warm_up: int = 2) -> float:
        """Milliseconds of one call by itself, waited for: the median of `n`."""
        for _ in range(warm_up):
            work()
        found = []
        for _ in range(n):
            self.wait()
            started = perf_counter()
            work()
            self.wait()
            found.append(1e3 * (perf_counter() - started))
        return round(median(found), 4)

    def row_ms(self, work: Callable[[], object], *, n: int = 10, warm_up: int = 2) -> float:
        """Milliseconds a call of `n` in a row, waited for once: what a loop sees."""
        for _ in range(warm_up):
            work()
        self.wait()
        started = perf_counter()
        for _ in range(n):
            work()
        self.wait()
        return round(1e3 * (perf_counter() - started) / n, 4)

    def launch_ms(self, work: Callable[[], object], *, n: int = 5) -> float:
        """Milliseconds until a call returns, the device's work left to itself: what launching costs."""
        found = []
        for _ in range(n):
            self.wait()
            started = perf_counter()
            work()
            found.append(1e3 * (perf_counter() - started))
        self.wait()
        return round(median(found), 4)

    @contextmanager
    def peak_into(self, row: dict[str, Any]) -> Iterator[None]:
        """Add to `row` the GB that were allocated at the most meanwhile; on a CPU nothing."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        if self.on_gpu:
            row["peak GB"] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 2)
