"""Faults on purpose: `make faults`, or `python -m tests.faults.run`.

    --kind NAME      of these kinds of files only (a part of the name), once or more
    --command NAME   the same of commands that are killed, or whose calls fail
    --seed 0         of all that is drawn
    --tries 5000     mutations in all
    --number N       only this trial of each kind: what a line of the findings says
    --only PARTS     of mutations, kills, failures, together, arrays
    --kills 260      of processes; --failures 1000: of calls; --rounds 50: of three jobs at once
    --arrays 20      of `extract --shards`, with locks and as many without; --tasks 8: of each

It ends with 1 where anything was silent, crashed, hung or came out different.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tests.faults import warm
from tests.faults.parts import PARTS, folders_of
from tests.faults.world import parts_of


def main() -> int:
    """All parts that are asked for; 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--kind", action="append", default=[])
    parser.add_argument("--command", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tries", type=int, default=5000)
    parser.add_argument("--number", type=int)
    parser.add_argument("--kills", type=int, default=260)
    parser.add_argument("--failures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--arrays", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="faults-", dir=memory if memory.is_dir() else None, ignore_cleanup_errors=True
    ) as folder:
        root = Path(folder)
        world = warm.world(root / "world", parts_of(folders_of(asked)))
        n_bad = sum(PARTS[name](world, root / "scratch", asked) for name in asked.only)
    return int(n_bad > 0)


if __name__ == "__main__":
    sys.exit(main())
