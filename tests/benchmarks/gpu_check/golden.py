"""Golden files on the device: heads with the reference's parameters, backbones with their authors' outputs.

Without the files (`SCIVID_SHARED`, or `shared` beside the checkout or in it) the step says so.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from readouts.tasks.base import PRECISIONS
from readouts.training.arithmetic import training_arithmetic
from tests.benchmarks.gpu_check.check import Check

ROOT = Path(__file__).parents[3]
FAMILIES = "tests/featcache/backbones/families"
LONGEST = 80.0
"""Seconds for the backbones; on a CPU they take half of it."""

PLUGIN = "tests.benchmarks.gpu_check.on_device"


def shared() -> Path | None:
    """The folder that holds `golden`, where it is at hand."""
    places = (os.environ.get("SCIVID_SHARED"), ROOT / "shared", ROOT.parent / "shared")
    return next((Path(place) for place in places if place and (Path(place) / "golden").is_dir()), None)


def measure(check: Check) -> None:
    """Worst error of all heads in each precision, and the suite's golden tests of backbones."""
    folder = shared()
    if folder is None:
        check.note("golden files", "not at hand: set SCIVID_SHARED to the folder that holds golden/")
        return
    for name in PRECISIONS:
        with check.guarded(f"heads, {name}"), training_arithmetic(name):
            _heads(check, name, folder / "golden" / "reference")
    with check.guarded("backbones"):
        _backbones(check, folder)


def _heads(check: Check, name: str, folder: Path) -> None:
    from tests.readouts.heads.reference.test_load import GRAD, OUT

    files = sorted(folder.glob("readout_*.npz"))
    errors = {file.stem: found for file in files if (found := _head(check.device, file)) is not None}
    worst = [max(both, default=0.0) for both in zip(*errors.values(), strict=True)]
    over = [stem for stem, (out, grad) in errors.items() if out >= OUT or grad >= GRAD]
    row = {"files": len(errors), "outputs off": f"{worst[0]:.1e}", "gradients off": f"{worst[1]:.1e}",
           "beyond the tests' bounds": ", ".join(over) or "none"}  # fmt: skip
    check.note(f"heads, {name}", row)
    if name == "float32":
        check.compare("heads within the golden files' bounds in float32", float(not over), target=1.0)


def _head(device: torch.device, file: Path) -> tuple[float, float] | None:
    """How far outputs and gradients are off, relative to the largest; None for what is no head."""
    from tests.conftest import Golden
    from tests.readouts.heads.reference import test_load as reference

    with np.load(file, allow_pickle=False) as arrays:
        golden = Golden(
            name=file.stem, meta=json.loads(file.with_suffix(".json").read_text()), arrays=dict(arrays)
        )
    if not golden.under("param/") or not golden.under("out/"):
        return None
    module: nn.Module = reference.load(golden).to(device)
    outputs, inputs = reference.outputs_of(module, golden, device)
    off = max(
        reference.error(found.detach().cpu(), golden.arrays[f"out/{name}"]) for name, found in outputs.items()
    )
    cotangents = golden.under("ct/")
    if not cotangents:
        return off, 0.0
    parts = [(outputs[name] * torch.from_numpy(ct).to(device)).sum() for name, ct in cotangents.items()]
    torch.stack(parts).sum().backward()
    ours = reference.gradients_to_reference(module.cpu())
    expected = {f"param/{name}": (ours[name], grad) for name, grad in golden.under("grad/param/").items()}
    expected |= {name: (inputs[name].grad.cpu(), grad) for name, grad in golden.under("grad/in/").items()}
    # A shift of all scores, which the softmax ignores: its gradient is rounding alone.
    told = [
        reference.error(*pair) for name, pair in expected.items() if not name.endswith("key_embedding/bias")
    ]
    return off, max(told, default=0.0)


def _backbones(check: Check, folder: Path) -> None:
    """In a process of their own, as the plugin patches what loads a model."""
    some = [f"{FAMILIES}/test_fourds.py"] if check.small else [FAMILIES]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider", "-k", "golden", "-W",
         "default", *some],
        env={**os.environ, "SCIVID_SHARED": str(folder), "GPU_CHECK_DEVICE": str(check.device),
             "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    failed = [line[:160] for line in lines if line.startswith(("FAILED", "ERROR"))]
    last = lines[-1] if lines else done.stderr[-300:]
    check.note("backbones, float32", {"pytest": last, "failed": "; ".join(failed) or "none"})
    check.compare("backbones within the golden files' bounds", float(done.returncode == 0), target=1.0)
