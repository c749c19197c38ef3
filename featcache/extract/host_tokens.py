"""Tokens on their way from the model to the host, in the number format of the store.

A GPU rounds or quantises them, which leaves fewer bytes to copy, and copies them to pinned memory that is
used again and again while it goes on with its next pass.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from featcache.spec import Layer
from featcache.store.dtypes import quantized_tensor
from featcache.system.device import host_buffer

Arrays = tuple[Shaped[np.ndarray, "B ..."], ...]
"""float16 tokens; or int8 levels and the scales of tokens."""


@dataclass(frozen=True, slots=True)
class Arriving:
    """Tokens of a pass that may still be on their way."""

    host: Mapping[Layer, tuple[Tensor, ...]]
    copied: torch.cuda.Event | None

    def arrived(self) -> dict[Layer, Arrays]:
        """All of them, waited for; good until two passes later."""
        if self.copied is not None:
            self.copied.synchronize()
        return {layer: tuple(values.numpy() for values in arrays) for layer, arrays in self.host.items()}


class HostTokens:
    """Takes the tokens of one pass after the other."""

    def __init__(self, device: torch.device, *, quantised: bool) -> None:
        """`quantised` tokens arrive as levels and scales, others in float16."""
        self.device, self.quantised = device, quantised
        self._turns: deque[dict[tuple[Layer, int], Tensor]] = deque([{}, {}])

    def begin(self, tokens: Mapping[Layer, Float[Tensor, "B T H W C"]]) -> Arriving:
        """Have them rounded and copied, behind the pass on a GPU's stream.

        What does not fit becomes infinite, and is refused with the clip's name when the shard is written.
        """
        self._turns.rotate()
        host = {layer: self._begun(layer, values) for layer, values in tokens.items()}
        on_gpu = self.device.type == "cuda"
        return Arriving(host, torch.cuda.current_stream(self.device).record_event() if on_gpu else None)

    def _begun(self, layer: Layer, tokens: Float[Tensor, "B T H W C"]) -> tuple[Tensor, ...]:
        made: tuple[Tensor, ...] = (tokens,)
        if self.quantised:
            made = quantized_tensor(tokens)
        elif tokens.is_cuda:
            made = (tokens.half(),)
        buffers = tuple(self._buffer(layer, number, values) for number, values in enumerate(made))
        for buffer, values in zip(buffers, made, strict=True):
            if values.is_cuda:
                buffer.copy_(values, non_blocking=True)
                continue
            # Few numbers at a time stay on this thread, where others would wait for a core that decodes.
            for of_clip, clip in zip(buffer, values, strict=True):
                of_clip.copy_(clip)
        return buffers

    def _buffer(self, layer: Layer, number: int, values: Tensor) -> Tensor:
        """Pinned for a GPU, where pinning takes long; of this turn."""
        kept, key = self._turns[0], (layer, number)
        if key not in kept or kept[key].shape != values.shape:
            dtype = values.dtype if self.quantised else torch.float16
            kept[key] = host_buffer(values.shape, dtype, self.device)
        return kept[key]
