"""A trained run from its folder, with what it tuned of its backbone: `readouts.load_run`."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from readouts.features.splits import TokensRead
from readouts.training.loaded import TrainedRun, run_in_folder
from readouts.tuning import backbone as backbones


def load_run(
    path: Path | str, *, backbone: str | None = None, device: torch.device | str = "cpu"
) -> TrainedRun:
    """The trained run whose folder this is, ready to predict.

        run = readouts.load_run("results/mice/videomae_b-0d3f8a1c92e7")
        probabilities = run.answers(run(torch.from_numpy(store.read([0, 5, 7])))["attention"])

    A run that tuned upper blocks takes the tokens behind the block below them, of stores that it can be
    trained from; one that tuned all of its backbone takes pixels. Their weights are the run's own: no other
    file is read.

    Args:
        path: `results/<task>/<backbone>-<run>`, or the checkpoint in it.
        backbone: of a run that tuned a user's own one: as `--backbone` was given it.
        device: that is to compute.

    Raises:
        CallError: there is no run, or one that keeps no weights of its own, as a probe; or no backbone is
            called as the one that it tuned.
        WeightsError: the backbone of that name is another one.
        StoreError: it has not ended yet, is damaged, or was trained by a version that did not say enough.
    """
    build = partial(_tuned, backbone=backbone, device=torch.device(device))
    return run_in_folder(path, build).to(device)


def _tuned(
    decisions: Mapping[str, Any],
    reads: TokensRead,
    learned: Mapping[str, Tensor],
    *,
    backbone: str | None,
    device: torch.device,
) -> nn.Module:
    model = backbones.load(backbone or str(reads.parts["backbone"]["name"]), None)
    # As in its training: a CPU's kernels round inside (`readouts.training.arithmetic`).
    bfloat16 = decisions["recipe"].get("precision") == "bfloat16" and device.type != "cpu"
    return backbones.rebuilt(model, decisions["tuning"], reads, learned, device=device, bfloat16=bfloat16)
