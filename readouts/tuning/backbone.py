"""The stores that a tuned run reads, and the backbone that it trains: the one that made them.

Of the training of stage two this file alone knows backbones. Upper blocks begin at the tokens after the block
below them, which the store must hold (`scivid extract --layers`); a whole backbone begins at pixels, and a
store of the layer that readouts see says of which clips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featcache.backbones import load_backbone, store_name
from featcache.backbones.base import Backbone, check_layer, resolve_layers
from featcache.backbones.trainable import TuningMode, refuse_untrainable, trainable
from featcache.errors import CallError, StoreError, WeightsError, listed
from featcache.fingerprint import differences
from featcache.manifest import Manifest
from featcache.spec import Layer
from featcache.store.feature_store import FeatureStore, find_stores
from featcache.system.console import Progress
from readouts.certify.online import replanned
from readouts.features.batches import Feed
from readouts.features.find import open_task_splits
from readouts.features.splits import FeatureSplit, TokensRead
from readouts.training.tuning import Tuning
from readouts.tuning.cost import TuningCost
from readouts.tuning.pixels import PixelFeed
from readouts.tuning.wish import WHOLE, Wish


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a tuned run's stores are looked for."""

    cache_dir: Path
    task: str
    store_name: str
    """Of the backbone."""
    fingerprint: str | None
    """First digits of the training store's; None where one fits."""
    extract: str
    """The command that makes stores of this backbone, without --layers."""


def name_in_stores(backbone: str) -> str:
    """The name that a backbone's stores begin with."""
    return store_name(backbone)


def load(backbone: str, weights_dir: Path | None) -> Backbone:
    """The backbone called so: see `featcache.backbones.load_backbone`."""
    return load_backbone(backbone, weights_dir)


def layer_seen(backbone: Backbone, text: str | None) -> Layer:
    """The layer that readouts see: as `--layer` names it, or the benchmark's.

    Raises:
        CallError: the model has no such layer, or several are the benchmark's.
    """
    info = backbone.info
    layers = info.default_layers if text is None else resolve_layers(text, info)
    if len(layers) != 1:
        names = ", ".join(layer.name for layer in layers)
        raise CallError(f"--tune: {info.name} has readouts at layers {names}: say at which with --layer.")
    return layers[0]


def open_tuned_splits(
    backbone: Backbone, wish: Wish, layer: Layer, place: Place, roles: Sequence[str]
) -> dict[str, FeatureSplit]:
    """Role -> the finished store of the tokens that training begins at.

    Raises:
        CallError: the backbone cannot be tuned, or has fewer blocks below the layer.
        StoreError: no such tokens are stored (names the command that stores them), or only a part of them
            is, or another backbone's.
    """
    refuse_untrainable(backbone)
    check_layer(layer, backbone.info)
    begin = begins_at(backbone, wish, layer)
    digits = place.fingerprint or _only_one_with(place, begin)
    extract = f"{place.extract} --layers {begin.name}"
    try:
        splits = open_task_splits(
            place.cache_dir, place.task, place.store_name,
            layer=begin.name, fingerprint=digits, roles=roles, extract=extract,
        )  # fmt: skip
    except StoreError as problem:
        why = "the tokens after it" if wish.blocks else "of which the clips and targets are"
        way_out = "" if extract in str(problem) else f" The command for that is `{extract}`."
        raise StoreError(
            f"--tune {wish.text} of layer {layer.name} begins at block {begin.name} and needs a store of "
            f"layer {begin.name}, {why}: {problem}{way_out}"
        ) from None
    for split in splits.values():
        _refuse_other_weights(backbone, split.store)
        if wish.blocks and last_step(split.store.parts) is not None:
            raise StoreError(
                f"{split.store.path} holds the last step of each clip alone, and blocks attend to all of "
                f"them: train with --tune all, or extract task {place.task} with `tokens: all` in a manifest."
            )
    return splits


def pixel_feeds(
    backbone: Backbone,
    splits: Mapping[str, FeatureSplit],
    manifest: Manifest,
    data_dir: Path,
    progress: Progress,
) -> dict[str, Feed]:
    """Role -> the pixels of the clips of its store.

    Raises:
        StoreError: the backbone, manifest and data that are here would not give the store.
        DataError: files are missing or broken.
    """
    return {
        role: PixelFeed(replanned(split.store, backbone, manifest, data_dir, progress), split)
        for role, split in splits.items()
    }


def tuning(
    backbone: Backbone,
    wish: Wish,
    layer: Layer,
    splits: Mapping[str, FeatureSplit],
    feeds: Mapping[str, Feed] | None = None,
) -> Tuning:
    """What a run on these splits trains of the backbone; `feeds` are of the pixels of a whole one."""
    train = splits["train"].store
    begin = None if wish.blocks is None else layer.block - wish.blocks
    build = partial(
        _built,
        backbone=backbone,
        layer=layer,
        begin=begin,
        checkpointing=wish.checkpointing,
        step_weights=last_step(train.parts) if begin is None else None,
    )
    return Tuning(
        blocks=wish.blocks,
        backbone_lr=wish.backbone_lr,
        layer=layer,
        build=build,
        feeds=feeds,
        cost=lambda recipe: TuningCost(info=backbone.info, layer=layer, wish=wish, recipe=recipe).sentences(),
        fresh_views=feeds is not None and not str(train.attrs["exactness"]).startswith("exact"),
        micro_batch=wish.micro_batch,
    )


def rebuilt(
    backbone: Backbone,
    decided: Mapping[str, Any],
    reads: TokensRead,
    learned: Mapping[str, Tensor],
    *,
    device: torch.device,
    bfloat16: bool,
) -> nn.Module:
    """What a run trained of its backbone, as it was after the last step; weight files are not needed.

    Args:
        backbone: that the run tuned.
        decided: `Tuning.decisions`.
        reads: of the run's stores.
        learned: parameters by their names in the module.
        device: that computes.
        bfloat16: whether products were rounded by the module there.

    Raises:
        CallError: the backbone cannot be tuned.
        WeightsError: it is not the one that the run tuned.
        RuntimeError: what was learned is of another one of the same name.
    """
    theirs = {"architecture": reads.parts["backbone"]["architecture"], "pixels": reads.parts["preprocessing"]}
    ours = {"architecture": backbone.architecture(), "pixels": backbone.preprocessing()}
    if unlike := differences(theirs, ours):
        raise WeightsError(
            f"the run did not tune this {backbone.info.name}:\n{listed(unlike)}\n(here: the run; asked for: "
            "the model.) Name the one that it tuned: --backbone my_model.py:BACKBONE."
        )
    layer, blocks = Layer.parse(decided["layer"]), decided["blocks"]
    whole = blocks == WHOLE
    weights = last_step(reads.parts) if whole else None
    return trainable(
        backbone, layer, device, begin=None if whole else layer.block - blocks,
        mode=TuningMode(bfloat16=bfloat16), learned=learned,
        step_weights=None if weights is None else torch.tensor(weights),
    )  # fmt: skip


def last_step(parts: Mapping[str, Any]) -> Sequence[float] | None:
    """The share of each step in the only one that stores of such `parts` keep; None where they keep all."""
    tokens = parts.get("tokens")
    steps = tokens.get("steps") if isinstance(tokens, Mapping) else None
    last: list[float] | None = steps.get("last") if isinstance(steps, Mapping) else None
    return last


def _built(
    device: torch.device,
    bfloat16: bool,
    *,
    backbone: Backbone,
    layer: Layer,
    begin: int | None,
    checkpointing: bool,
    step_weights: Sequence[float] | None,
) -> nn.Module:
    mode = TuningMode(bfloat16=bfloat16, checkpointing=checkpointing)
    weights = None if step_weights is None else torch.tensor(step_weights)
    return trainable(backbone, layer, device, begin=begin, mode=mode, step_weights=weights)


def begins_at(backbone: Backbone, wish: Wish, layer: Layer) -> Layer:
    """The layer whose store a tuned run reads: of a whole backbone it says which clips there are.

    Raises:
        CallError: there are fewer blocks below the layer that readouts see.
    """
    if wish.blocks is None:
        return layer
    if wish.blocks > layer.block:
        raise CallError(
            f"--tune {wish.blocks}: {backbone.info.name} has {layer.block} blocks up to layer {layer.name}: "
            f"write 1 to {layer.block}, or all."
        )
    return Layer(layer.block - wish.blocks)


def _only_one_with(place: Place, begin: Layer) -> str | None:
    """The fingerprint of the only training store that holds a layer; None where there are more, or none."""
    stores = find_stores(place.cache_dir, place.task, "train", place.store_name)
    found = [store.fingerprint for store in stores if begin in store.spec.layers]
    return found[0] if len(found) == 1 else None


def _refuse_other_weights(backbone: Backbone, store: FeatureStore) -> None:
    """Refuse to train other weights than those that made the store's tokens.

    Raises:
        WeightsError: says in what they differ.
    """
    theirs = {name: store.parts["backbone"].get(name) for name in ("architecture", "weights")}
    ours = {"architecture": backbone.architecture(), "weights": backbone.weights_digest()}
    if unlike := differences({"backbone": theirs}, {"backbone": ours}):
        raise WeightsError(
            f"{store.path} is not of these weights of {backbone.info.name}:\n{listed(unlike)}\n"
            "(here: the store; asked for: the weights.) Tune those that made it, with --weights-dir."
        )
