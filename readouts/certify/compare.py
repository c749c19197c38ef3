"""The same draws online, with the backbone in the loop, and from the cache, side by side.

Equal heads, with equal dropout, and equal upper blocks where a run tunes some, learn from both kinds of
tokens; `online` makes those of the backbone, `certificate` judges what was found, and the certificate stays
with the store. A third set learns from the backbone's tokens rounded as a store rounds them: what a faultless
cache does to a readout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from featcache.backbones.base import Backbone
from featcache.errors import CallError
from featcache.manifest import Manifest
from featcache.system.console import Progress, silent
from featcache.system.device import device_name
from readouts.certify.certificate import (
    NOISE_MARGIN,
    Certificate,
    Findings,
    ReadoutComparison,
    TokenAgreement,
    gap_interval,
    is_exact,
    judge,
    read_certificate,
    worst_difference,
    write_certificate,
)
from readouts.certify.online import OnlineTokens, replanned
from readouts.features.draws import Draws, evenly
from readouts.metrics.base import PerClip
from readouts.results.significance.bootstrap import FEWEST_CLUSTERS, Clusters, MeanScore, resampled
from readouts.tasks.base import Task
from readouts.training.arithmetic import training_arithmetic
from readouts.training.run import Run
from readouts.training.step import TrainState, build_preparation, take_step, take_tuned_step

STEPS, VAL_CLIPS = 20, 64
"""Training steps and evaluated clips: enough to see a difference, and little enough for a CPU."""

SEEDS_EXACT, SEEDS_SAMPLED = 1, 3
"""How many seeds are trained: where views are samples, a gap without a spread would say nothing."""

CHECKED_VIEWS = 16
"""Frozen views that are compared by themselves where training online does not show them."""

RESAMPLES = 200
"""How often clusters are drawn again: that gives a standard deviation to 5 %."""


def certify(
    run: Run,
    backbone: Backbone,
    manifest: Manifest,
    *,
    data_dir: Path,
    device: torch.device,
    seeds: int | None = None,
    val_clips: int = VAL_CLIPS,
    margin: float = NOISE_MARGIN,
    batch: int = 8,
    command: str = "",
    progress: Progress = silent,
) -> Certificate:
    """Train and score `run` both ways, judge, and keep the certificate with the train store.

    Args:
        run: over `train` and `val`, of as many steps as are to be compared (`configure` with `steps=20`).
        backbone: that of the stores, ready to run.
        manifest: as at extraction.
        data_dir: the files that the stores came from.
        device: of backbone and heads.
        seeds: runs each way, from the run's own seed on; None: 1 for exact tasks, 3 where views are samples.
        val_clips: evaluated clips at the most, evenly spaced over the split.
        margin: share of the score by which frozen views may change it and still be noise.
        batch: clip views in one forward pass of the backbone.
        command: the call that repeats it.
        progress: told what is being done.

    Raises:
        StoreError: backbone, preprocessing, data or labels are not those of a store; says in what. Or the
            certificates that are there are damaged.
        DataError: files are missing or broken.
        WeightsError: the backbone's weights are missing or do not fit.
        CallError: fewer than one seed, clip or clip view; a readout of several layers; or a backbone that is
            tuned from pixels.
    """
    if min(val_clips, batch, 1 if seeds is None else seeds) < 1:
        raise CallError(f"seeds={seeds}, val_clips={val_clips} and batch={batch} must be at least 1.")
    _refuse_uncertifiable(run)
    sources = {
        role: replanned(run.splits[role].store, backbone, manifest, data_dir, progress)
        for role in ("train", "val")
    }
    n_seeds = _n_seeds(run, seeds)
    # Before the work: a damaged file of certificates would be lost with those of other layers.
    read_certificate(run.training.store.path)
    encoder = backbone.load((run.training.layer,), device, sources["train"].job.dtype)
    train = OnlineTokens(sources["train"], run.training, encoder, device, batch)
    val = OnlineTokens(sources["val"], run.splits["val"], encoder, device, batch)
    clips = val.split.clips_at(evenly(val.split.n_usable, val_clips))
    with training_arithmetic(run.recipe.precision):
        pairs = [_Pair(_of_seed(run, i), device) for i in range(n_seeds)]
        train_tokens = _train(pairs, train, progress)
        val_tokens = _score(pairs, val, clips, progress)
    found = Findings(
        exactness=train.job.exactness,
        precision=str(train.job.dtype).removeprefix("torch."),
        dtype=train.dtype,
        train_tokens=train_tokens,
        val_tokens=val_tokens,
        readouts=tuple(_compared(kind, pairs, val.clusters(clips)) for kind in run.readouts),
        metric=run.task.score,
        steps=run.recipe.steps,
        seeds=n_seeds,
        margin=margin,
    )
    certificate = _certificate(run, found, n_val_clips=len(clips), device=device, command=command)
    write_certificate(run.training.store.path, certificate)
    return certificate


def _refuse_uncertifiable(run: Run) -> None:
    if len(run.training.layers) > 1:
        raise CallError(
            f"--layer {run.training.layer_name}: a certificate is of one layer; certify each by itself, with "
            "a readout of one."
        )
    if run.tuning is not None and run.tuning.feeds is not None:
        raise CallError(
            "--tune all reads pixels, and no store stands for them: certify what learns from one, --tune M "
            "or a frozen backbone."
        )


def _n_seeds(run: Run, asked: int | None) -> int:
    if is_exact(run.training.store.attrs["exactness"]):
        return asked or SEEDS_EXACT
    if asked == 1:
        raise CallError(
            f"the views of task {run.task.name} are samples, and one seed does not tell a gap from luck: "
            "give --seeds 2 or more."
        )
    return asked or SEEDS_SAMPLED


def _of_seed(run: Run, i: int) -> Run:
    """Other initial weights, dropout, clips and views."""
    recipe = replace(run.recipe, order_seed=run.recipe.order_seed + i)
    return replace(run, seed=run.seed + i, recipe=recipe)


class _Heads(TrainState):
    """Heads of one run, and upper blocks that it tunes, fed with one kind of tokens."""

    def __init__(self, run: Run, device: torch.device) -> None:
        super().__init__(run, device)
        self.prepare = build_preparation(run).to(device)
        self.series: dict[str, list[float]] = {kind: [] for kind in self.heads}
        """The losses of each head, a step each."""
        self.own: dict[str, list[PerClip]] = {kind: [] for kind in self.heads}
        """Statistics of each batch of val, from tokens of the kind that the heads learned from."""
        self.other: dict[str, list[PerClip]] = {kind: [] for kind in self.heads}
        """The same from tokens of the other kind."""

    def learn(self, tokens: Float[Tensor, "B T N C"], targets: Mapping[str, Tensor]) -> None:
        """One training step, as `readouts.training.loop` takes it; the same dropout both ways."""
        if self.backbone is None:
            (losses,) = take_step([self], self.prepare(tokens), targets)
        else:
            losses = take_tuned_step(self, tokens, self.prepare, targets)
        for kind, loss in losses.items():
            self.series[kind].append(float(loss))

    @torch.inference_mode()
    def score(
        self,
        tokens: Float[Tensor, "B T N C"],
        targets: Mapping[str, Tensor],
        statistics: Mapping[str, list[PerClip]],
    ) -> None:
        """Add to the statistics those of one batch of val."""
        self.heads.eval()
        seen = tokens if self.backbone is None else self.backbone.tokens(tokens)
        prepared, inputs = self.prepare(seen), self.run.task.inputs(targets)
        for kind, head in self.heads.items():
            outputs = head(prepared, **inputs).float()
            statistics[kind].append(self.run.task.per_clip(outputs, targets))


class _Pair:
    """One run both ways: equal heads, equal draws, equal dropout."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run, self.online, self.cached = run, _Heads(run, device), _Heads(run, device)
        exact = is_exact(run.training.store.attrs["exactness"])
        self.rounded = _Heads(run, device) if exact else None
        """None where views are samples, which part the two ways far more than rounding does."""


def _train(pairs: Sequence[_Pair], source: OnlineTokens, progress: Progress) -> TokenAgreement:
    """All steps of all runs; how well stored tokens agree with those of the same clip views."""
    exact, compared = is_exact(source.job.exactness), list[TokenAgreement]()
    total = sum(pair.run.recipe.steps for pair in pairs)
    for done, (pair, step) in enumerate((p, s) for p in pairs for s in range(p.run.recipe.steps)):
        progress("training online and cached", done, total)
        draws = pair.run.draws
        positions, views = draws.at(step)
        clips = source.split.clips_at(positions)
        cached = source.stored(clips, views)
        online = source.tokens(clips, views if exact else _fresh_views(source, draws, step))
        if exact:
            compared.append(source.agreement(online, cached))
        elif done == 0:
            some = slice(CHECKED_VIEWS)
            compared.append(source.agreement(source.tokens(clips[some], views[some]), cached[some]))
        targets = source.targets(pair.run.task, clips, views, np.random.default_rng([draws.seed, step]))
        pair.online.learn(online, targets)
        pair.cached.learn(cached, targets)
        if pair.rounded is not None:
            pair.rounded.learn(source.rounded(online), targets)
    progress("training online and cached", total, total)
    return _agreement(compared)


def _score(
    pairs: Sequence[_Pair], source: OnlineTokens, clips: Int64[np.ndarray, " n"], progress: Progress
) -> TokenAgreement:
    """Score all heads on val; each clip meets the backbone once."""
    compared = list[TokenAgreement]()
    for part in np.split(clips, range(pairs[0].run.recipe.batch, len(clips), pairs[0].run.recipe.batch)):
        progress("scoring val online and cached", sum(some.n_clip_views for some in compared), len(clips))
        views = np.zeros_like(part)
        online, cached = source.tokens(part, views), source.stored(part, views)
        targets = source.targets(pairs[0].run.task, part, views, None)
        for pair in pairs:
            pair.online.score(online, targets, pair.online.own)
            pair.online.score(cached, targets, pair.online.other)
            pair.cached.score(cached, targets, pair.cached.own)
            if pair.rounded is not None:
                pair.rounded.score(source.rounded(online), targets, pair.rounded.own)
        compared.append(source.agreement(online, cached))
    progress("scoring val online and cached", len(clips), len(clips))
    return _agreement(compared)


def _fresh_views(source: OnlineTokens, draws: Draws, step: int) -> Int64[np.ndarray, " B"]:
    """A view for every draw that neither the store nor another draw has."""
    first = source.split.store.spec.n_views + (draws.seed << 32) + step * draws.batch
    return np.arange(first, first + draws.batch)


def _agreement(compared: Sequence[TokenAgreement]) -> TokenAgreement:
    counts = [some.n_clip_views for some in compared]
    # By numpy, which passes NaN on.
    return TokenAgreement(
        n_clip_views=sum(counts),
        beyond_rounding=float(np.max([some.beyond_rounding for some in compared])),
        moved=float(np.average([some.moved for some in compared], weights=counts)),
    )


def _compared(kind: str, pairs: Sequence[_Pair], clusters: Clusters | None) -> ReadoutComparison:
    """What the two ways gave one head."""
    task = pairs[0].run.task
    of_online = [task.join(pair.online.own[kind]) for pair in pairs]
    of_cached = [task.join(pair.cached.own[kind]) for pair in pairs]
    online = np.array([task.scores(per_clip)[task.score] for per_clip in of_online])
    cached = np.array([task.scores(per_clip)[task.score] for per_clip in of_cached])
    swapped = np.array([task.scores(task.join(pair.online.other[kind]))[task.score] for pair in pairs])
    by_clusters = _cluster_error(task, of_online, of_cached, clusters)
    low, high = gap_interval((cached - online).tolist(), *by_clusters)
    series = [(pair.online.series[kind], pair.cached.series[kind]) for pair in pairs]
    metric_rounded, loss_difference_rounded = _by_rounding(kind, pairs)
    return ReadoutComparison(
        readout=kind,
        metric_online=float(online.mean()),
        metric_cached=float(cached.mean()),
        gap=float((cached - online).mean()),
        gap_low=low,
        gap_high=high,
        evaluation_gap=float((swapped - online).mean()),
        worst_loss_difference=float(np.max([worst_difference(*losses) for losses in series])),
        metric_rounded=metric_rounded,
        loss_difference_rounded=loss_difference_rounded,
        losses_online=tuple(series[0][0]),
        losses_cached=tuple(series[0][1]),
    )


def _by_rounding(kind: str, pairs: Sequence[_Pair]) -> tuple[float | None, float | None]:
    """Score of one head that saw rounded tokens, and how far its early losses are from those online."""
    both = [(pair.online, pair.rounded) for pair in pairs if pair.rounded is not None]
    if not both:
        return None, None
    task = pairs[0].run.task
    scores = [task.scores(task.join(rounded.own[kind]))[task.score] for _, rounded in both]
    apart = [worst_difference(online.series[kind], rounded.series[kind]) for online, rounded in both]
    return float(np.mean(scores)), float(np.max(apart))


def _cluster_error(
    task: Task, online: Sequence[PerClip], cached: Sequence[PerClip], clusters: Clusters | None
) -> tuple[float, int]:
    """Deviation of the mean gap when clusters are drawn again, and how many; zeros if it cannot be told."""
    if len(online) < 2 or clusters is None or len(clusters) < FEWEST_CLUSTERS:
        return 0.0, 0
    of_cached, of_online = (
        resampled(MeanScore(task, runs), clusters, n=RESAMPLES) for runs in (cached, online)
    )
    return float((of_cached - of_online).drawn.std(ddof=1)), len(clusters)


def _name(run: Run) -> str:
    """What was certified of a store: the tokens of a layer, or what upper blocks learn from them."""
    name, tuning = run.training.layer.name, run.tuning
    return name if tuning is None else f"{name}, --tune {tuning.blocks} of layer {tuning.layer.name}"


def _certificate(
    run: Run, found: Findings, *, n_val_clips: int, device: torch.device, command: str
) -> Certificate:
    train, val = run.splits["train"], run.splits["val"]
    verdict, text = judge(found)
    return Certificate(
        task=run.task.name,
        backbone=train.store.attrs["backbone"],
        layer=_name(run),
        train_fingerprint=train.store.fingerprint,
        val_fingerprint=val.store.fingerprint,
        batch=run.recipe.batch,
        n_val_clips=n_val_clips,
        verdict=verdict,
        text=text,
        findings=found,
        device=device_name(device),
        command=command,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )
