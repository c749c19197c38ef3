"""Where the time of a training step goes, by operation: one readout and sixteen, tokens in memory.

    python -m tests.benchmarks.profile_step [--small] [--rows 15]

On a GPU where there is one, sorted by its time; else on one thread, as the profiler sees no others.
"""

import argparse

import torch
from torch.profiler import ProfilerActivity, profile

from readouts.tokens.prepared import TokenPreparation
from tests.benchmarks.attention_step import STEPS, draw_tokens
from tests.benchmarks.many_heads import draw_runs, step

N_STEPS = 5


def tables(*, small: bool, rows: int) -> dict[str, str]:
    """The profiler's table of `N_STEPS` steps, by what was trained; leaves torch with one thread on a CPU."""
    tokens = draw_tokens(small)
    runs = draw_runs(small, tokens.device)
    prepare = TokenPreparation(steps_in=STEPS, steps_out=2 * STEPS, method="linear").to(tokens.device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if tokens.is_cuda else [])]
    if not tokens.is_cuda:
        torch.set_num_threads(1)
    found = {}
    for name, trained in {"one readout": {"0": runs["0"]}, f"{len(runs)} readouts": runs}.items():
        step(trained, prepare, tokens)
        with profile(activities=activities) as profiler:
            for _ in range(N_STEPS):
                step(trained, prepare, tokens)
            if tokens.is_cuda:
                torch.cuda.synchronize()
        order = "self_device_time_total" if tokens.is_cuda else "self_cpu_time_total"
        found[name] = profiler.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=48)
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--small", action="store_true", help="sizes that only show that it runs")
    parser.add_argument("--rows", type=int, default=15, help="operations to show")
    asked = parser.parse_args()
    for name, table in tables(small=asked.small, rows=asked.rows).items():
        print(f"{N_STEPS} steps of {name}\n{table}")  # noqa: T201


if __name__ == "__main__":
    main()
