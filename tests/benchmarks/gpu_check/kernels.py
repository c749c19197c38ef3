"""Attention kernels by head width: which take it, and how fast, at a video's number of tokens in bfloat16."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.benchmarks.gpu_check.check import Check

HEADS = {64: 16, 80: 16, 88: 16, 112: 16, 128: 32}
"""Channels of a head -> heads: L; H; g of VideoMAEv2 and VideoPrism; 4DS-e; 7B."""

KERNELS = {
    "torch": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
"""Each alone, unlike `featcache.system.device.attention_kernel`, which falls back; math takes seconds."""


def measure(check: Check) -> None:
    """TFLOP/s, a row a head width."""
    batch, tokens = (1, 32) if check.small else (16, 1568)
    for width, heads in HEADS.items():
        q, k, v = torch.randn(3, batch, heads, tokens, width, device=check.device).bfloat16()
        flop = 4 * batch * heads * tokens**2 * width
        row: dict[str, object] = {}
        for name, kernel in KERNELS.items():
            alone = nullcontext() if kernel is None else sdpa_kernel(kernel)
            try:
                with torch.inference_mode(), alone:
                    ms = check.row_ms(lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v), n=5)
                row[f"{name}, TFLOP/s"] = round(flop / ms / 1e9, 1)
            except RuntimeError as problem:
                row[f"{name}, TFLOP/s"] = f"refused: {str(problem)[:60]}"
        check.note(f"head width {width}", row)
