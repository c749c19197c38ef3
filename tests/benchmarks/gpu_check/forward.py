"""Forward passes of every full-size backbone with random weights: share of the peak, kernels, rounding."""

from math import prod

import torch

from featcache.backbones import BACKBONES
from featcache.extract.batch_size import chosen_batch, useful_batch
from featcache.store.spec import TARGET_SHARD_BYTES
from featcache.system.device import AttentionKernel, attention_kernel
from tests.benchmarks.bfloat16_cost import rms_over_spread, smooth_clips
from tests.benchmarks.gpu_check.check import Check
from tests.benchmarks.random_backbones import random_backbone

FIRST = (
    "4ds_l", "vjepa2_l", "videoprism_b", "videomae_b", "videomaev2_g", "4ds_e", "dinov2_b", "vjepa2_g",
    "dinov3_l", "videoprism_l", "videomae_l", "dinov2_g",
)  # fmt: skip
"""One of each family and width of head; the others follow while there is time."""

KERNELS: tuple[AttentionKernel, ...] = ("flash", "cudnn")
LONGEST_MS = 500.0
"""For one number."""

SECONDS = {"small": 4.0, "large": 12.0}
"""What a backbone takes, of fewer and of more than 10^9 parameters."""

TIMES = 4
"""How many times the clips that an extraction would choose a second batch has."""

EXACT_PARAMS_M = 1500.0
"""Millions of parameters up to which the pass is done in float32 as well."""


def measure(check: Check) -> None:
    """A row a backbone; those that time does not allow are named."""
    with_weights = [name for name, model in BACKBONES.items() if model.release is not None]
    names = [*FIRST, *(name for name in with_weights if name not in FIRST)]
    for name in ["4ds_b_dist_e"] if check.small else names:
        if not check.has(SECONDS["large" if BACKBONES[name].info.params_m > 1000 else "small"]):
            check.note("left out for time", names[names.index(name) :])
            return
        with check.guarded(name), torch.inference_mode():
            check.note(name, _row(check, name))
        if check.on_gpu:
            torch.cuda.empty_cache()


def _row(check: Check, name: str) -> dict[str, object]:
    backbone = random_backbone(name, check.device, depth=1 if check.small else None)
    info, layer = backbone.info, backbone.info.default_layers[0]
    encoder = backbone.load((layer,), check.device, check.dtype)
    one = smooth_clips(1, info, check.device)
    batch = 1
    if check.on_gpu:
        most = useful_batch(max(1, TARGET_SHARD_BYTES // info.grid.nbytes), prod(info.grid.shape[:-1]))
        batch = chosen_batch(lambda n: encoder(one.expand(n, -1, -1, -1, -1)), check.device, most=most)
    many, row = smooth_clips(batch, info, check.device), {"clips at once": batch}
    with check.peak_into(row):
        once = check.each_ms(lambda: encoder(many), n=1, warm_up=1)
    n = int(min(8, max(1, LONGEST_MS // once)))
    ms = check.row_ms(lambda: encoder(many), n=n, warm_up=0)
    gflop = (info.gflop or 0.0) * layer.block / max(1, info.n_blocks)
    row |= {"ms a clip": round(ms / batch, 4), "clips a second": round(1e3 * batch / ms, 1),
            "TFLOP/s": round(gflop * batch / ms, 3)}  # fmt: skip
    if check.peak_tflops:
        row["of the matrix product"] = round(gflop * batch / ms / check.peak_tflops, 3)
    with check.guarded(f"{name}, a larger batch"):
        larger = smooth_clips(TIMES * batch, info, check.device)
        row[f"ms a clip, {TIMES} times the batch"] = round(
            check.row_ms(lambda: encoder(larger), n=max(1, n // TIMES), warm_up=1) / len(larger), 4
        )
        del larger
    row["launching, ms a pass"] = check.launch_ms(lambda: encoder(many), n=1)
    for kernel in KERNELS:
        with attention_kernel(kernel):
            row[f"ms a clip, {kernel} first"] = round(
                check.row_ms(lambda: encoder(many), n=n, warm_up=1) / batch, 4
            )
    rounded = encoder if check.on_gpu else backbone.load((layer,), check.device, torch.bfloat16)
    tokens = rounded(one)[layer]
    row["finite"] = bool(tokens.isfinite().all())
    del encoder, rounded
    if info.params_m < EXACT_PARAMS_M:
        exact = backbone.load((layer,), check.device, torch.float32)(one)[layer]
        row["bfloat16 off float32"] = round(rms_over_spread(tokens, exact), 5)
    return row
