"""Writing a shard durably, checks and checksums included, beside a plain write of the same bytes."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from featcache.store.dtypes import Quantised, quantized_tensor
from featcache.store.spec import TokenDtype
from featcache.store.writer import StoreWriter, Tokens, create_or_resume
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, LAYER, SMALL, Setting, clips_of, shards_of_tokens, spec_of

GROUP = "writing"
ROUNDS = 12


def measure(small: bool) -> list[Claim]:
    """Claims about writing."""
    setting = SMALL if small else FULL
    tokens = next(shards_of_tokens(setting))
    quantised = Quantised(*(part.numpy() for part in quantized_tensor(torch.from_numpy(tokens))))
    rounds = 2 if small else ROUNDS
    claims = [
        _against_plain(setting, "float16", "float16", tokens, rounds),
        _against_plain(setting, "int8", "int8, quantised here", tokens, rounds),
        _against_plain(setting, "int8", "int8, quantised by the model's device", quantised, rounds),
    ]
    return [*claims, _two_at_a_time(setting, tokens, rounds)]


def _writer(folder: str, setting: Setting, dtype: TokenDtype) -> StoreWriter:
    return create_or_resume(
        Path(folder) / "w.zarr", spec=spec_of(setting, dtype), parts={"tokens": {"dtype": dtype}},
        clips=clips_of(setting), provenance={}, attrs={"targets": None},
    )  # fmt: skip


def _two_at_a_time(setting: Setting, tokens: np.ndarray, rounds: int) -> Claim:
    """Two shards one after the other, and by two threads, as an extraction whose writer is behind."""
    with TemporaryDirectory() as folder, _writer(folder, setting, "float16") as writer:

        def write(shard: int) -> None:
            writer.write_shard(shard, {LAYER: tokens})

        with ThreadPoolExecutor(2) as pool:
            times = in_turn(
                {
                    "one after the other": lambda: [write(shard) for shard in range(2)],
                    "two at a time": lambda: list(pool.map(write, range(2))),
                },
                rounds=rounds,
            )
    return claim(
        times, group=GROUP, what="two shards, one after the other / two at a time, float16",
        over="one after the other", under="two at a time", detail=f"{2 * tokens.nbytes / 1e6:.0f} MB",
    )  # fmt: skip


def _against_plain(setting: Setting, dtype: TokenDtype, what: str, tokens: Tokens, rounds: int) -> Claim:
    """A shard written again and again, and a file of as many bytes."""
    with TemporaryDirectory() as folder, _writer(folder, setting, dtype) as writer:
        writer.write_shard(0, {LAYER: tokens})
        written = [path.stat().st_size for path in writer.path.glob("*/c.0.*")]
        plain = np.random.default_rng(0).integers(0, 256, sum(written), np.uint8)
        times = in_turn(
            {
                "plain write and fsync": lambda: plain_write(Path(folder) / "plain", plain),
                "write_shard": lambda: writer.write_shard(0, {LAYER: tokens}),
            },
            rounds=rounds,
        )
    return claim(
        times, group=GROUP, what=f"plain write and fsync / write_shard, {what}",
        over="plain write and fsync", under="write_shard",
        target=0.7 if dtype == "float16" else None, detail=f"{sum(written) / 1e6:.0f} MB",
    )  # fmt: skip


def plain_write(path: Path, data: np.ndarray) -> None:
    """A new file each time, as a shard is."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        os.fsync(fd)
    finally:
        os.close(fd)
