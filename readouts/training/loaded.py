"""A trained run from its folder alone: a module that takes tokens and gives what its evaluation gave.

Neither the store it was trained from nor its task need be there: a checkpoint says what tokens its heads read
and what their outputs are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float, Num
from torch import Tensor, nn

from featcache.errors import CallError, DamagedFileError, StoreError
from featcache.spec import Layer
from readouts.features.splits import TokensRead
from readouts.heads.base import Readout, forward_together
from readouts.results.run_folder import RunFolder, read_whole_curve
from readouts.tokens.prepared import Native, prepare_batch
from readouts.training.arithmetic import training_arithmetic
from readouts.training.run import run_id
from readouts.training.step import heads_of, preparation_of
from readouts.training.trainer import load_state

Tokens = Native | Num[Tensor, "B T H W C"]
"""As stage two reads them, or as `FeatureStore.read` gives them."""


class TrainedRun(nn.Module):
    """The readouts of a run with the weights of its last step, which all of its scores are of.

    The run's best step is a line of its results; weights of it are kept nowhere.
    """

    def __init__(
        self, folder: RunFolder, decisions: Mapping[str, Any], reads: TokensRead, gives: Mapping[str, Any]
    ) -> None:
        """Heads of a run that decided so, without its weights."""
        super().__init__()
        self.folder, self.decisions, self.reads, self.gives = folder, decisions, reads, gives
        self.prepare = preparation_of(reads)
        self.heads = heads_of(
            decisions["readouts"], reads, n_outputs=gives["n_outputs"], seed=decisions["seed"]
        )

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of the O outputs of a readout: classes, or hours ahead."""
        return tuple(self.gives["names"])

    @property
    def readouts(self) -> tuple[str, ...]:
        """The kinds of its heads, the best on the whole of val first."""
        curve = read_whole_curve(self.folder.curve, self.decisions["recipe"]["steps"])
        last, score = curve[-1]["step"], f"val/{self.gives['score']}"
        scores = {point["readout"]: point[score] for point in curve if point["step"] == last}
        ranked = sorted(self.heads, key=lambda kind: scores[kind], reverse=self.gives["higher_is_better"])
        return tuple(ranked)

    @torch.inference_mode()
    def forward(
        self, tokens: Tokens | Mapping[Layer, Tokens], **inputs: Tensor
    ) -> dict[str, Float[Tensor, "B *outputs"]]:
        """The outputs of every readout, by kind, as the run's evaluation gives them: logits of labels.

        Args:
            tokens: of a batch, native steps, of any float dtype; by layer where the run reads several.
            inputs: what heads need beside them (tracking: `queries` and `query_mask`).
        """
        seen: Native | dict[Layer, Native]
        if isinstance(tokens, Mapping):
            seen = {layer: _by_step(of_layer) for layer, of_layer in tokens.items()}
        else:
            seen = _by_step(tokens)
        heads = {kind: cast("Readout", head.eval()) for kind, head in self.heads.items()}
        with training_arithmetic(self.decisions["recipe"].get("precision", "float32")):
            found = forward_together(heads, prepare_batch(self.prepare, seen), inputs)
            return {kind: outputs.float() for kind, outputs in found.items()}

    def answers(self, outputs: Float[Tensor, "B *outputs"]) -> Float[Tensor, "B *outputs"]:
        """Of outputs the probabilities of labels, or values in their unit."""
        if self.gives["are_labels"]:
            return outputs.sigmoid()
        offset: float = self.gives["offset"]
        scale: float = self.gives.get("scale", 1.0)
        return outputs * scale + offset


def load_run(path: Path | str) -> TrainedRun:
    """The trained run whose folder this is, on the CPU, ready to predict.

        run = readouts.load_run("results/mice/videomae_b-0d3f8a1c92e7")
        probabilities = run.answers(run(torch.from_numpy(store.read([0, 5, 7])))["attention"])

    Args:
        path: `results/<task>/<backbone>-<run>`, or the checkpoint in it.

    Raises:
        CallError: there is no run, or one that keeps no weights of its own: a probe, a backbone that learned.
        StoreError: it has not ended yet, is damaged, or was trained by a version that did not say enough.
    """
    folder = RunFolder(Path(path).parent if Path(path).is_file() else Path(path))
    if not folder.state.exists():
        # A curve is what only a run that was trained has.
        gone = "has lost its weights (`scivid clean --weights`), and is trained anew with --again"
        fitted = "is a probe's, which is fitted anew each time"
        why = "is not there" if not folder.path.is_dir() else gone if folder.curve.exists() else fitted
        raise CallError(
            f"{folder.path} holds no checkpoint: it {why}. Name the folder of a run of train-readout, "
            "results/<task>/<backbone>-<run>."
        )
    tensors, about = load_state(folder.state)
    try:
        decisions, step = about["decisions"], about["step"]
        steps = decisions["recipe"]["steps"]
    except (KeyError, TypeError):
        raise DamagedFileError(
            f"{folder.state} does not say of which run it is: train with --again."
        ) from None
    if (whose := run_id(decisions)) != folder.run:
        raise StoreError(
            f"{folder.state} is the checkpoint of run {whose}, and its folder is that of {folder.run}: a "
            "run's folder keeps its name, <backbone>-<run>, wherever it is copied."
        )
    if decisions.get("tuning") is not None:
        raise CallError(
            f"{folder.path}: the run tuned its backbone, whose tokens are in no store: only readouts of "
            "frozen backbones predict."
        )
    if step != steps:
        raise StoreError(f"{folder.path} is at step {step} of {steps}: give its command again, to end it.")
    if "reads" not in about:
        raise StoreError(
            f"{folder.state} is of an earlier version, which did not note what tokens its heads read: give "
            "its command again with --again, which trains it anew."
        )
    run = TrainedRun(folder, decisions, TokensRead.from_json(about["reads"]), about["gives"])
    weights = {name.removeprefix("weight/"): tensor for name, tensor in tensors.items()}
    try:
        run.heads.load_state_dict(weights)
    except RuntimeError:
        raise StoreError(
            f"{folder.state} is of heads of other weights, of another version of scivid perhaps: train with "
            "--again."
        ) from None
    return run.requires_grad_(False).eval()


def _by_step(tokens: Tokens) -> Native:
    if isinstance(tokens, Tensor) and tokens.ndim == 5:
        return rearrange(tokens, "b t h w c -> b t (h w) c")
    return tokens
