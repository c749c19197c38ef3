"""A readout's training step at the benchmark's sizes, as the product takes it, tokens on the device.

Each kind of head: milliseconds, launches, memory, precision; the textbook's attention; sixteen heads beside
one; the same bits when it is repeated, alone and among others.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from featcache.manifest import load_manifest
from featcache.spec import TokenGrid
from readouts.features.splits import FeatureSplit, split_of
from readouts.tasks import load_task
from readouts.tasks.base import PRECISIONS, Task
from readouts.tasks.classification import Classification
from readouts.tasks.tracking import Tracking
from readouts.tokens.prepared import TokenPreparation
from readouts.training.arithmetic import training_arithmetic
from readouts.training.run import Run
from readouts.training.step import TrainState, build_preparation, take_step
from tests.benchmarks.attention_step import PlainAttention
from tests.benchmarks.gpu_check.check import Check
from tests.benchmarks.gpu_check.features import write_features

N_TOGETHER = 16
UPDATES = 4
"""Of a head whose bits are compared."""

LONG_MS = 1000.0
"""A step of many heads that takes longer is timed, and not repeated for more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A head of the benchmark on its task."""

    kind: str
    task: str
    steps: int
    """Of the tokens: a video's eight, weather's last."""
    batch: int
    n: int
    """Timed steps."""


CASES = (
    Case(kind="attention", task="flyvsfly", steps=8, batch=32, n=20),
    Case(kind="tracking", task="stir", steps=8, batch=32, n=8),
    Case(kind="dpt", task="weatherbench2", steps=1, batch=16, n=4),
)
NARROW: Mapping[str, Mapping[str, int]] = {
    "attention": {"width": 32, "heads": 2},
    "tracking": {"width": 32, "heads": 2},
    "dpt": {"features": 8, "head_channels": 8},
}
"""Settings of the small sizes."""


class Bench:
    """Heads of one kind in training on tokens that lie on the device."""

    def __init__(self, check: Check, case: Case, folder: Path) -> None:
        self.check, self.case = check, case
        self.batch = 2 if check.small else case.batch
        side, channels = (4, 32) if check.small else (14, 1024)
        grid = TokenGrid(steps=case.steps, rows=side, columns=side, channels=channels)
        self.task: Task = load_task(case.task, load_manifest())
        self.split = split_of_grid(grid, folder)
        generator = torch.Generator(check.device).manual_seed(1)
        shape = (self.batch, case.steps, side * side, channels)
        self.tokens = torch.randn(shape, generator=generator, device=check.device).half()
        self.targets = draw_targets(self.task, self.batch, check.device)
        self.prepare: TokenPreparation = build_preparation(self.run(0)).to(check.device)

    def run(self, seed: int) -> Run:
        """The benchmark's run, of another seed."""
        settings = dict(self.task.head_config(self.case.kind))
        if self.check.small:
            settings |= NARROW[self.case.kind]
        splits = {"train": self.split}
        return Run(
            task=self.task, splits=splits, readouts={self.case.kind: settings}, recipe=self.task.recipe,
            seed=seed,
        )  # fmt: skip

    def states(self, n: int) -> list[TrainState]:
        """So many heads, each as its seed begins it."""
        return [TrainState(self.run(seed), self.check.device) for seed in range(n)]

    def step(self, states: Sequence[TrainState]) -> None:
        """One step of all of them."""
        take_step(states, self.prepare(self.tokens), self.targets)

    def trained(self, n: int) -> list[str]:
        """Digests of the weights after a few steps, from the beginning, together."""
        states = self.states(n)
        for _ in range(UPDATES):
            self.step(states)
        return [digest_of(state) for state in states]


def measure(check: Check) -> None:
    """Every kind of head, then those in company."""
    for case in CASES:
        with check.guarded(case.kind), TemporaryDirectory() as folder, training_arithmetic():
            if not check.has(10):
                check.note(f"{case.kind}, left out for time", True)
                continue
            bench = Bench(check, case, Path(folder))
            check.note(f"{case.kind} on {case.task}, batch {bench.batch}", _alone(check, bench))
            check.note(f"{case.kind}, many heads", _together(check, bench))
            if case.kind == "attention":
                check.note("attention, forward and backward", _textbook(check, bench))
        if check.on_gpu:
            torch.cuda.empty_cache()


def split_of_grid(grid: TokenGrid, folder: Path) -> FeatureSplit:
    """A store of two clips, for what a run asks of one: its grid and its up-sampling."""
    return split_of(write_features(folder, grid, n_clips=2, clips_per_shard=2))


def draw_targets(task: Task, n: int, device: torch.device) -> dict[str, Tensor]:
    """Targets of `n` clips, of the shapes that the task's own have."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(device)

    if isinstance(task, Classification):
        return {"labels": (uniform(n, task.n_outputs) > 0.5).to(torch.uint8)}
    if isinstance(task, Tracking):
        seen = torch.ones(n, task.n_frames, task.n_tracks, 1, device=device)
        return {
            "queries": uniform(n, task.n_tracks, 2),
            "coords": uniform(n, task.n_frames, task.n_tracks, 2),
            "visible": seen, "query_mask": seen[:, 0], "target_mask": seen,
        }  # fmt: skip
    fields = (task.rows, task.columns, len(task.variables))  # type: ignore[attr-defined]
    return {"last": uniform(n, *fields), "future": uniform(n, task.n_frames, *fields)}  # type: ignore[attr-defined]


def digest_of(state: TrainState) -> str:
    """Of all weights."""
    digest = hashlib.sha256()
    for parameter in state.heads.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def launches_of(check: Check, work: Any) -> int | None:
    """Kernels that one call launches; None on a CPU."""
    if not check.on_gpu:
        return None
    work()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        work()
        check.wait()
    return sum(event.count for event in found.key_averages() if "LaunchKernel" in event.key)


def _alone(check: Check, bench: Bench) -> dict[str, object]:
    states, n = bench.states(1), 2 if check.small else bench.case.n
    row: dict[str, object] = {}
    with check.peak_into(row):
        row["ms a step"] = check.row_ms(lambda: bench.step(states), n=n)
    row["launching, ms"] = check.launch_ms(lambda: bench.step(states), n=2)
    row["launches"] = launches_of(check, lambda: bench.step(states))
    for precision in PRECISIONS[1:]:
        with training_arithmetic(precision):
            row[f"ms a step, {precision}"] = check.row_ms(lambda: bench.step(states), n=n)
    row["same bits when repeated"] = same = bench.trained(1) == bench.trained(1)
    check.compare(f"{bench.case.kind}: the same bits when repeated", float(same), target=1.0)
    return row


def _together(check: Check, bench: Bench) -> dict[str, object]:
    """Many heads in one pass, beside one."""
    kind, n_heads = bench.case.kind, 3 if check.small else N_TOGETHER
    n = 1 if check.small else max(1, bench.case.n // 4)
    one, many = bench.states(1), bench.states(n_heads)
    row: dict[str, object] = {"heads": n_heads}
    alone = check.row_ms(lambda: bench.step(one), n=n)
    with check.peak_into(row):
        together = check.row_ms(lambda: bench.step(many), n=n, warm_up=1)
    row |= {"ms a step": together, "of one": alone}
    target, detail = 4.0 if kind == "attention" else None, f"{together:.2f} ms, {alone:.2f} ms"
    check.compare(
        f"{kind}: {n_heads} heads over one", together / alone, target=target, at_least=False, detail=detail
    )
    if together < LONG_MS:
        row["launches"] = launches_of(check, lambda: bench.step(many))
        row["first as alone, bit for bit"] = bench.trained(1)[0] == bench.trained(n_heads)[0]
    return row


def _textbook(check: Check, bench: Bench) -> dict[str, object]:
    """Ours beside the textbook's, with the same parameters, in three precisions."""
    head: Any = bench.states(1)[0].readouts["attention"].eval()
    plain, tokens, n = PlainAttention(head).to(check.device), bench.tokens, 1 if check.small else 5

    def textbook() -> None:
        plain(tokens).square().sum().backward()

    ours = check.row_ms(lambda: head(bench.prepare(tokens)).square().sum().backward(), n=n)
    row: dict[str, object] = {
        "ours, ms": ours,
        "textbook, float32, ms": check.row_ms(textbook, n=n, warm_up=1),
    }
    with training_arithmetic("tf32"):
        row["textbook, tf32, ms"] = check.row_ms(textbook, n=n, warm_up=1)
    with torch.autocast(check.device.type, torch.bfloat16):
        row["textbook, bfloat16 autocast, ms"] = check.row_ms(textbook, n=n, warm_up=1)
    slow = float(str(row["textbook, float32, ms"]))
    check.compare("attention: the textbook's step over ours", slow / ours, target=10.0)
    return row
