"""A trained run from its folder alone: a module that takes tokens and gives what its evaluation gave.

Neither the store it was trained from nor its task need be there: a checkpoint says what tokens its heads read
and what their outputs are. What a run tuned of its backbone is built by whom it is asked of
(`readouts.tuning.loaded`): nothing here knows a backbone.
"""

from collections.abc import Callable, Mapping
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
from readouts.tokens.prepared import Native, dense_tokens, prepare_batch
from readouts.training.arithmetic import training_arithmetic
from readouts.training.run import run_id
from readouts.training.step import heads_of, preparation_of
from readouts.training.trainer import load_state

Tokens = Native | Num[Tensor, "B T H W C"]
"""As stage two reads them, or as `FeatureStore.read` gives them."""

BuildTuned = Callable[[Mapping[str, Any], TokensRead, Mapping[str, Tensor]], nn.Module]
"""(decisions of the run, what it reads, what it learned of its backbone by name) -> the tuned module."""

BACKBONE = "backbone."
"""What the names of a tuned backbone's weights begin with in a checkpoint."""


class TrainedRun(nn.Module):
    """The readouts of a run with the weights of its last step, which all of its scores are of.

    The run's best step is a line of its results; weights of it are kept nowhere.
    """

    def __init__(
        self,
        folder: RunFolder,
        decisions: Mapping[str, Any],
        reads: TokensRead,
        gives: Mapping[str, Any],
        tuned: nn.Module | None = None,
    ) -> None:
        """Heads of a run that decided so, without their weights; `tuned` is what it trained below them."""
        super().__init__()
        self.tuned = tuned
        self.folder, self.decisions, self.reads, self.gives = folder, decisions, reads, gives
        self.prepare = preparation_of(reads)
        self.heads = heads_of(
            decisions["readouts"], reads, n_outputs=gives["n_outputs"], seed=decisions["seed"]
        )

    @property
    def takes_pixels(self) -> bool:
        """Whether it trained its whole backbone, and takes pixels instead of tokens."""
        tuning = self.decisions.get("tuning")
        return tuning is not None and tuning["blocks"] == "all"

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
            tokens: of a batch, native steps, of any float dtype; by layer where the run reads several. Of a
                run that tuned upper blocks those behind the block below them, as its stores hold them; of
                one that tuned its whole backbone pixels [B F rgb Y X] in [0, 1].
            inputs: what heads need beside them (tracking: `queries`).
        """
        heads = {kind: cast("Readout", head.eval()) for kind, head in self.heads.items()}
        with training_arithmetic(self.decisions["recipe"].get("precision", "float32")):
            native = _native(tokens) if self.tuned is None else self._tuned_tokens(tokens)
            found = forward_together(heads, prepare_batch(self.prepare, native), inputs)
            return {kind: outputs.float() for kind, outputs in found.items()}

    def _tuned_tokens(self, given: Any) -> Float[Tensor, "B T N C"]:
        assert self.tuned is not None
        found: Tensor = self.tuned(given if self.takes_pixels else dense_tokens(_by_step(given)))
        return found

    def answers(self, outputs: Float[Tensor, "B *outputs"]) -> Float[Tensor, "B *outputs"]:
        """Of outputs the probabilities of labels, or values in their unit."""
        if self.gives["are_labels"]:
            return outputs.sigmoid()
        offset: float = self.gives["offset"]
        scale: float = self.gives.get("scale", 1.0)
        return outputs * scale + offset


def run_in_folder(path: Path | str, build: BuildTuned) -> TrainedRun:
    """The trained run whose folder this is, on the CPU; `build` makes what it tuned of its backbone.

    Raises:
        CallError: there is no run, or one that keeps no weights of its own, as a probe.
        StoreError: it has not ended yet, is damaged, or was trained by a version that did not say enough.
    """
    folder = RunFolder(Path(path).parent if Path(path).is_file() else Path(path))
    if not folder.state.exists():
        # A curve is what only a run that was trained has.
        gone = "has lost its weights (`scivid clean --weights`), and is trained anew with --again"
        fitted = "is a probe's, which is fitted anew each time"
        of_a_run = any(folder.path.glob("*.parquet"))
        why = gone if folder.curve.exists() else fitted if of_a_run else "is no run's"
        why = why if folder.path.is_dir() else "is not there"
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
    if step != steps:
        raise StoreError(f"{folder.path} is at step {step} of {steps}: give its command again, to end it.")
    if "reads" not in about:
        raise StoreError(
            f"{folder.state} is of an earlier version, which did not note what tokens its heads read: give "
            "its command again with --again, which trains it anew."
        )
    reads = TokensRead.from_json(about["reads"])
    weights = {name.removeprefix("weight/"): tensor for name, tensor in tensors.items()}
    of_backbone = {name: weights.pop(name) for name in list(weights) if name.startswith(BACKBONE)}
    learned = {name.removeprefix(BACKBONE): tensor for name, tensor in of_backbone.items()}
    try:
        tuned = None if decisions.get("tuning") is None else build(decisions, reads, learned)
        run = TrainedRun(folder, decisions, reads, about["gives"], tuned)
        run.heads.load_state_dict(weights)
    except RuntimeError:
        raise StoreError(
            f"{folder.state} is of heads or a backbone of other weights, of another version of scivid "
            "perhaps: train with --again."
        ) from None
    return run.requires_grad_(False).eval()


def _native(tokens: Tokens | Mapping[Layer, Tokens]) -> Native | dict[Layer, Native]:
    if isinstance(tokens, Mapping):
        return {layer: _by_step(of_layer) for layer, of_layer in tokens.items()}
    return _by_step(tokens)


def _by_step(tokens: Tokens) -> Native:
    if isinstance(tokens, Tensor) and tokens.ndim == 5:
        return rearrange(tokens, "b t h w c -> b t (h w) c")
    return tokens
