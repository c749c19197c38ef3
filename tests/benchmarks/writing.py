"""Writing a shard durably, checks and checksums included, beside a plain write of the same bytes."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from featcache.store.spec import TokenDtype
from featcache.store.writer import create_or_resume
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, LAYER, SMALL, Setting, clips_of, shards_of_tokens, spec_of

GROUP = "writing"
ROUNDS = 12


def measure(small: bool) -> list[Claim]:
    """Claims about writing."""
    setting = SMALL if small else FULL
    tokens = next(shards_of_tokens(setting))
    return [_against_plain(setting, dtype, tokens, 2 if small else ROUNDS) for dtype in ("float16", "int8")]


def _against_plain(setting: Setting, dtype: TokenDtype, tokens: np.ndarray, rounds: int) -> Claim:
    """A shard written again and again, and a file of as many bytes."""
    spec = spec_of(setting, dtype)
    with TemporaryDirectory() as folder:
        parts = {"tokens": {"dtype": dtype}}
        with create_or_resume(
            Path(folder) / "w.zarr", spec=spec, parts=parts, clips=clips_of(setting), provenance={},
            attrs={"targets": None},
        ) as writer:  # fmt: skip
            writer.write_shard(0, {LAYER: tokens})
            written = [path.stat().st_size for path in writer.path.glob("*/c.0.*")]
            plain = np.resize(tokens.view(np.uint8), sum(written))
            times = in_turn(
                {
                    "plain write and fsync": lambda: plain_write(Path(folder) / "plain", plain),
                    "write_shard": lambda: writer.write_shard(0, {LAYER: tokens}),
                },
                rounds=rounds,
            )
    what = f"plain write and fsync / write_shard, {dtype}"
    return claim(
        times, group=GROUP, what=what, over="plain write and fsync", under="write_shard",
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
