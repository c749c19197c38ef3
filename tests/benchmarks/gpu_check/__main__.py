"""The whole product on one GPU in one call: what is right, how fast, how far from the device's peak.

    make gpu-check                                       on a machine with a GPU; DIR is gpu-check
    python tests/benchmarks/gpu_check --out DIR [--only machine,steps]
    python tests/benchmarks/gpu_check --cpu-smoke        tiny sizes on a CPU: shows only that it runs

Within 8 minutes; `gpu.json` and `table.md` in DIR are whole after every line that is printed. The first table
holds the ratios that were asked for. The exit code is 1 where a step failed or a ratio is not met.

A checkout is enough, scivid need not be installed. What a bare machine for torch with transformers, pandas,
pyarrow, xarray, jaxtyping and pytest lacks are eleven wheels (17 MB): array_record, beartype, dask, donfig,
fastcrc, google-crc32c, locket, numcodecs, partd, simplejpeg, zarr, in the versions of `constraints.txt`.
Fetch them where there is a network, for the Python of that machine, and put them on PYTHONPATH:

    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \\
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d wheels NAME==VERSION ...
    pip install --no-index --no-deps --target site wheels/*.whl; export PYTHONPATH=site

`av` (36 MB) is for a user's own videos only. Golden files (23 MB: `golden/reference`, `golden/backbones`) are
looked for in SCIVID_SHARED, in `shared` and beside the checkout; without them that step says so.
"""

import argparse
import os
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[3]
if __package__ != "tests.benchmarks.gpu_check":
    # Run by its path: the folder of the steps gives way to the checkout, and the checkout's tests, which have
    # no __init__, go before any package of that name that is installed.
    sys.path[0] = str(ROOT)
    tests = ModuleType("tests")
    tests.__path__ = [str(ROOT / "tests")]
    sys.modules["tests"] = tests

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does, before torch is loaded

if TYPE_CHECKING:
    from tests.benchmarks.gpu_check.check import Check

SHARES = {
    "machine": 25, "golden": 75, "extracting": 120, "steps": 80, "training": 60, "kernels": 10, "forward": 90,
}  # fmt: skip
"""Step -> seconds; what one does not use is there for the next."""


def main() -> None:
    """Run the steps that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", help=f"some of {','.join(SHARES)}")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="a folder; default: %(default)s")
    parser.add_argument("--cpu-smoke", action="store_true", help="tiny sizes on the CPU, a minute at most")
    asked = parser.parse_args()
    names = asked.only.split(",") if asked.only else list(SHARES)
    if unknown := set(names) - SHARES.keys():
        parser.error(f"no step is called {', '.join(sorted(unknown))}")
    import torch  # what is asked wrongly is answered at once

    from tests.benchmarks.gpu_check.check import Check

    if not (asked.cpu_smoke or torch.cuda.is_available()):
        parser.error("torch sees no GPU here. To see that the check itself runs, give --cpu-smoke.")
    if asked.cpu_smoke:
        torch.set_num_threads(1)
    check = Check(
        device=torch.device("cpu" if asked.cpu_smoke else "cuda"), small=asked.cpu_smoke, out=asked.out,
        budget=sum(SHARES.values()),
    )  # fmt: skip
    with check.watched():
        for name in names:
            check.run(name, partial(_measure, name), SHARES[name])
    check.say(f"done: {asked.out / 'table.md'}")
    missed = [one.what for one in check.claims if one.met is False and not asked.cpu_smoke]
    for line in [*check.failures, *missed]:
        check.say("NOT RIGHT:", line)
    sys.exit(1 if check.failures or missed else 0)


def _measure(name: str, check: "Check") -> None:
    """A step is imported when its turn comes: one that lacks a package fails alone."""
    import_module(f"tests.benchmarks.gpu_check.{name}").measure(check)


if __name__ == "__main__":
    main()
