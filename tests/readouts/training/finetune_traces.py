"""The reference's fine-tuning, as its traces have it, from our parts: backbone, heads, losses, optimiser."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from featcache.backbones.base import block_at_fraction
from featcache.backbones.families.fourds import FourDS
from featcache.backbones.model import vit_info
from featcache.backbones.sizes import BlockSize, VideoViTSize
from featcache.backbones.trainable import trainable
from featcache.spec import Layer
from readouts.heads import load_reference
from readouts.heads.dpt import DPTReadout, add_residual
from readouts.heads.tracking import as_tracks
from readouts.metrics.area import latitude_weights
from readouts.tasks.losses import (
    area_weighted_l1,
    sigmoid_cross_entropy,
    squared_error,
    total_of,
    track_losses,
)
from readouts.tokens.prepared import TokenPreparation
from readouts.training.optim import ReferenceAdamW, WarmupCosine
from readouts.training.step import backward
from tests.readouts.heads.reference.flax import to_reference

CPU = torch.device("cpu")

MakeOptimizer = Callable[[Any, list[Tensor], list[Tensor]], Any]
"""(golden, parameters of the backbone, those of the heads) -> what has `step`."""


class Replay:
    """One trace: its model, its heads, and what becomes of them."""

    def __init__(self, golden: Any, folder: Path, *, begin: int | None = None) -> None:
        """From pixels, or (`begin`) from tokens after a block."""
        self.golden = golden
        config = golden.meta["module_kwargs"]
        self.fourds = _fourds(golden, folder)
        self.layer = Layer(block_at_fraction(config["backbone"]["readout_depth"], self.fourds.info.n_blocks))
        assert self.layer.block == golden.meta["readout_layer"]["after_blocks"]
        self.backbone = trainable(self.fourds, self.layer, CPU, begin=begin)
        grid = self.fourds.info.grid
        frames = config["backbone"]["num_input_frames"]
        self.prepare = TokenPreparation(steps_in=grid.steps, steps_out=frames, method="cubic")
        self.modules, self.heads = _heads(golden, grid.rows, grid.columns)
        self.losses: list[float] = []

    def pixels(self) -> Tensor:
        """All clips as the backbone takes them."""
        return torch.from_numpy(np.moveaxis(self.golden.arrays["in/video"], -1, 2).copy())

    def lower(self, begin: int) -> Tensor:
        """All clips' tokens after a block, from the frozen encoder."""
        tokens = self.fourds.load((Layer(begin),), CPU, torch.float32)(self.pixels())[Layer(begin)]
        return rearrange(tokens, "b t h w c -> b t (h w) c").clone()

    def cached(self) -> Tensor:
        """All clips' tokens as the reference stored them."""
        steps = self.fourds.info.grid.steps
        return rearrange(torch.from_numpy(self.golden.arrays["in/cache"]), "b (t n) c -> b t n c", t=steps)

    def run(self, given: Tensor, make_optimizer: MakeOptimizer) -> "Replay":
        """Train on the trace's batches, which are rows of `given`."""
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        heads = [p for head in self.heads.values() for p in head.parameters()]
        optimizer = make_optimizer(self.golden, backbone, heads)
        for clips in self.golden.arrays["in/batch_index"]:
            for parameter in (*backbone, *heads):
                parameter.grad = None
            batch = {
                k: torch.from_numpy(v[clips]) for k, v in self.golden.under("in/").items() if k in _BATCH
            }
            tokens = self.prepare(self.backbone(given[clips]))
            inputs = {"queries": batch["query_coords"]} if "query_coords" in batch else {}
            losses = backward(self.heads, tokens, inputs, lambda _, out, b=batch: _loss(self.golden, out, b))
            optimizer.step()
            self.losses.append(float(torch.stack(list(losses.values())).sum()))
        return self

    def loss_errors(self) -> tuple[float, float]:
        """The largest relative error of the first ten losses, and of all."""
        expected = self.golden.arrays["out/total_loss"]
        off = np.abs(np.array(self.losses) / expected - 1)
        return float(off[:10].max()), float(off.max())

    def parameter_errors(self) -> dict[str, float]:
        """Parameter -> its largest error, as a share of how far it moved; key biases are noise."""
        found = {f"params/{path}": array for path, array in backbone_to_reference(self).items()}
        for name, module in self.modules.items():
            found |= {f"{name}/{path}": array for path, array in to_reference(module).items()}
        initial, final = self.golden.under("param/"), self.golden.under("out/final_param/")
        return {
            path: float(np.abs(array - final[path]).max() / np.abs(final[path] - initial[path]).max())
            for path, array in found.items()
            if not path.endswith(("attention/key/bias", "key_embedding/bias"))
        }


def tolerances(golden: Any) -> tuple[float, float, float]:
    """Of the first ten losses, of all, and of the final parameters."""
    text = golden.meta["tolerances"]["out"]
    number = r"([\d.e+-]+)"
    found = re.search(
        rf"total_loss rtol {number} \(first 10 steps {number}\); final params \|d\| <= {number}", text
    )
    assert found is not None, text
    losses, first, parameters = (float(one) for one in found.groups())
    return first, losses, parameters


def ours(golden: Any, backbone: list[Tensor], heads: list[Tensor]) -> ReferenceAdamW:
    """The product's optimiser."""
    optax = golden.optax
    schedule = WarmupCosine(
        peak=optax["peak_value"],
        steps=int(optax["decay_steps"]),
        warmup=int(optax["warmup_steps"]),
        end=optax["end_value"],
    )
    return ReferenceAdamW(
        [{"params": heads}, {"params": backbone, "multiplier": optax["scale_backbone"]}],
        schedule=schedule,
        weight_decay=optax["weight_decay"],
        clip_update=optax.get("clip_by_global_norm"),
    )


_BATCH = (
    "labels", "normalized_pressure", "query_coords", "target_coords", "target_vis", "query_mask",
    "target_mask", "image", "future",
)  # fmt: skip


def _fourds(golden: Any, folder: Path) -> FourDS:
    config = golden.meta["module_kwargs"]["backbone"]
    size = VideoViTSize(
        block=BlockSize(width=config["width"], heads=config["num_heads"], mlp=config["mlp_size"]),
        depth=config["num_layers"],
        patch=tuple(config["patch_size"]),
        input_size=tuple(config["image_size"]),
        n_frames=config["num_input_frames"],
        positions="stored",
        gelu="tanh",
        final_norm=False,
    )
    path = folder / "scaling4d_x.npz"
    arrays: dict[str, Any] = {f"params/{key}": a for key, a in golden.under("param/params/").items()}
    np.savez(path, **arrays)
    return FourDS(info=vit_info("tiny", "fourds", size), size=size, file=lambda: path)


def backbone_to_reference(replay: Replay) -> Mapping[str, np.ndarray]:
    """What was trained of the backbone, in the layout of the release."""
    entries, found = replay.fourds.key_map({}).entries, dict[str, np.ndarray]()
    for name, parameter in replay.backbone.model.named_parameters():
        entry = entries[name]
        left, _, right = (entry.axes or "... -> ...").partition(" -> ")
        for key, part in zip(entry.keys, parameter.detach().chunk(len(entry.keys)), strict=True):
            lengths = dict(zip(left.split(), entry.shape, strict=True)) if entry.axes else {}
            array = rearrange(part, f"{right} -> {left}", **lengths) if entry.axes else part
            assert key is not None
            found[key.removeprefix("params/")] = array.numpy()
    return found


def _heads(golden: Any, rows: int, columns: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """By name the reference's modules, and the heads inside them that the product trains."""
    config, task = golden.meta["module_kwargs"]["head"], golden.meta["module_kwargs"]["task"]
    modules: dict[str, Any] = {}
    heads: dict[str, Any] = {}
    for name in sorted(
        {path.split("/")[0] for path in golden.under("param/") if path.startswith("readout_")}
    ):
        params = golden.under(f"param/{name}/")
        if task.startswith("weatherbench"):
            shape = {k: config[k] for k in ("pred_seq_len", "output_resolution", "dpt_feature_dims",
                                            "dpt_intermediate_channels")}  # fmt: skip
            module = load_reference(
                "dpt", params, inner_readout={**shape, "output_channels": len(config["residual_std"])},
                residual_std=config["residual_std"], residual_mean=config["residual_mean"],
            )  # fmt: skip
            head: nn.Module = DPTReadout(channels=1, rows=rows, columns=columns, features=1, head_channels=1)
            head.decoder = module.head.head
        elif task.startswith("stir"):
            shape = {k: config[k] for k in ("num_params", "num_heads", "mlp_hidden", "mlp_output",
                                            "temporal_tile_size")}  # fmt: skip
            frames = golden.arrays["in/target_coords"].shape[1]
            each = frames // config["temporal_tile_size"]
            module = load_reference(
                "tracking",
                params,
                **shape,
                num_classes=4 * each,
                num_frames=frames,
                num_frames_per_query=each,
            )
            head = module.head
        else:
            kind = "linear" if "linear" in name else "attention"
            own = {"num_classes": config["num_classes"]}
            own |= {"reduce_axis": [-2, -3]} if kind == "linear" else {
                "num_params": config["num_params"], "num_heads": config["num_heads"]
            }  # fmt: skip
            shifted = any(path.startswith("inner_readout/") for path in params)
            module = load_reference(kind, params, **({"inner_readout": own} if shifted else own))
            head = module.head.head if shifted else module.head
        modules[name], heads[name] = module.train(), head.train()
    return modules, heads


def _loss(golden: Any, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    config = golden.meta["module_kwargs"]["head"]
    if "labels" in batch:
        return sigmoid_cross_entropy(outputs, batch["labels"]).mean
    if "normalized_pressure" in batch:
        return squared_error(outputs, batch["normalized_pressure"]).mean
    if "query_coords" in batch:
        tracks = as_tracks(outputs)
        assert tracks.visible_logits is not None and tracks.certainty_logits is not None
        return total_of(
            track_losses(
                tracks.points, tracks.visible_logits, tracks.certainty_logits,
                targets=batch["target_coords"], visible=batch["target_vis"], query_mask=batch["query_mask"],
                target_mask=batch["target_mask"], rows=config["im_size"][0],
            )
        )  # fmt: skip
    mean, std = (torch.tensor(config[f"residual_{name}"]) for name in ("mean", "std"))
    predicted = add_residual(batch["image"][:, -1], outputs, std=std, mean=mean)
    weights = latitude_weights(predicted.shape[2])
    return area_weighted_l1(
        predicted, batch["future"], latitude_weights=weights.float(), residual_std=std
    ).mean
