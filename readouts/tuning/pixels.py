"""Batches of pixels for a backbone that is trained whole: decoded ahead, by the road that certifies caches.

What is drawn of a clip is a function of the clip, the view's number and the store's seed, and which number a
step takes one of step and seed: a resumed run sees the same pixels. Where views are continuous every draw has
a number of its own, so that no view comes twice, as in the reference.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from featcache.system.ahead import map_ahead
from readouts.certify.online import DECODE_THREADS, OnlinePixels, Origin
from readouts.features.batches import Batch, Select, Wanted
from readouts.features.splits import FeatureSplit

BATCHES_AHEAD = 2
"""Decoded while one is used: 16 frames of 224 x 224 in float32 are 9.6 MB a clip."""


@dataclass(frozen=True, slots=True)
class PixelFeed:
    """The pixels of one split: a `readouts.features.batches.Feed`."""

    origin: Origin
    split: FeatureSplit

    def __call__(self, select: Select, wanted: Iterable[Wanted], device: torch.device) -> Iterator[Batch]:
        """The batches, in order, their pixels [B F rgb Y X] in [0, 1] on the device.

        Raises:
            DataError: a file is missing or broken.
        """
        pixels, targets = OnlinePixels(self.origin, device), self.split.targets

        def read(one: Wanted) -> Batch:
            clips, views, rng = one
            decoded = list(decoders.map(pixels.of, clips.tolist(), views.tolist()))
            chosen = {} if targets is None else select(targets, clips, views, rng)
            return Batch(
                clips=clips.astype(np.int64),
                tokens=torch.stack(decoded),
                targets={name: torch.from_numpy(values).to(device) for name, values in chosen.items()},
            )

        with (
            ThreadPoolExecutor(DECODE_THREADS, "decode") as decoders,
            ThreadPoolExecutor(1, "ahead") as reader,
        ):
            try:
                for _, coming in map_ahead(reader, read, wanted, window=BATCHES_AHEAD + 1):
                    yield coming.result()
            finally:
                reader.shutdown(cancel_futures=True)
