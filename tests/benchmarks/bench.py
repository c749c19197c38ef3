"""Every claim of speed, measured: a table, and JSON.

    python -m tests.benchmarks.bench [reading training ...] [--small] [--quiet] [--json benchmarks.json]

A measurement is a module of this folder with `measure(small) -> claims`. Names choose some of them; `small`
is for a look that they all run, its numbers mean nothing.
"""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does, before torch is loaded

from tests.benchmarks.side_by_side import Claim, only_quiet_windows

MEASUREMENTS = (
    "reading",
    "cold",
    "writing",
    "attention_step",
    "layers_step",
    "tuning_step",
    "tracking_step",
    "many_heads",
    "launches",
    "training",
    "resident",
    "online",
    "extraction",
    "workers",
    "shared_frames",
    "int8_store",
    "weather_step",
    "buckets",
)
"""In the order of the table."""


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("measurements", nargs="*", help=f"of {', '.join(MEASUREMENTS)}; none: all")
    parser.add_argument("--small", action="store_true", help="sizes that only show that it runs")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"))
    parser.add_argument("--quiet", action="store_true", help="time only while other processes rest")
    asked = parser.parse_args()
    if asked.quiet:
        only_quiet_windows()
    if unknown := set(asked.measurements) - set(MEASUREMENTS):
        parser.error(f"no measurement is called {', '.join(sorted(unknown))}")
    claims: list[Claim] = []
    for name in asked.measurements or MEASUREMENTS:
        found = import_module(f"tests.benchmarks.{name}").measure(asked.small)
        print(table(found), flush=True)  # noqa: T201
        claims += found
        # After each: what was measured is not lost when a later one fails.
        asked.json.write_text(json.dumps(document(claims), indent=2) + "\n")


def table(claims: Sequence[Claim]) -> str:
    """A Markdown row a claim."""
    return "\n".join(
        f"| {c.group} | {c.what} | {c.ratio:.2f} ({c.low:.2f} to {c.high:.2f}) | {_asked(c)} | {c.detail} |"
        for c in claims
    )


def _asked(found: Claim) -> str:
    if found.target is None:
        return ""
    bound = "at least" if found.at_least else "at most"
    return f"{bound} {found.target:g}: {'yes' if found.met else 'NO'}"


def document(claims: Sequence[Claim]) -> dict[str, object]:
    """What the JSON file holds."""
    import torch

    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    return {"machine": machine, "claims": [{**asdict(c), "met": c.met} for c in claims]}


if __name__ == "__main__":
    main()
