"""An int8 store beside a float16 one of the same tokens: bytes, time of a batch, error of the tokens."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from featcache.store.dtypes import dequantize_into, quantize
from featcache.store.feature_store import FeatureStore
from tests.benchmarks.side_by_side import Claim, claim, in_turn
from tests.benchmarks.stores import FULL, LAYER, SMALL, Setting, draws, shards_of_tokens, write_store

GROUP = "int8 store"
LOUD = 20.0
"""How much louder than the others the loud channels of a trained model are, in the second claim on errors."""


def measure(small: bool) -> list[Claim]:
    """Claims about int8 stores."""
    setting = SMALL if small else FULL
    tokens = next(shards_of_tokens(setting))[0, 0]
    loud = tokens.copy()
    loud[..., ::256] *= np.float16(LOUD)
    with TemporaryDirectory() as folder:
        whole, quantized = (write_store(Path(folder), setting, dtype) for dtype in ("float16", "int8"))
        return [
            _figure("float16 / int8, bytes on disk", bytes_of(whole) / bytes_of(quantized)),
            *_reading_claims(whole, quantized, setting),
            _figure("error in % of the tokens (root mean square), normal numbers", percent_error(tokens)),
            _figure(f"the same, every 256th channel {LOUD:g} times as loud", percent_error(loud)),
        ]


def bytes_of(store: FeatureStore) -> int:
    """Of all shard files."""
    return sum(path.stat().st_size for path in store.path.glob("*/c.*"))


def percent_error(tokens: np.ndarray) -> float:
    """Of float16 [T, H, W, C], stored in int8 and widened."""
    back = np.empty_like(tokens)
    dequantize_into(back, *quantize(tokens))
    wide = tokens.astype(np.float32)
    return 100 * float(np.sqrt(np.square(back - wide).mean() / np.square(wide).mean()))


def _reading_claims(whole: FeatureStore, quantized: FeatureStore, setting: Setting) -> list[Claim]:
    shape = (setting.batch, *setting.grid.shape)
    wide, levels = np.ones(shape, np.float16), np.ones(shape, np.int8)
    scales = np.ones(shape[:-1], np.float32)
    clips = [draws(setting) for _ in range(3)]
    threads = setting.threads
    calls = {
        "float16": lambda: whole.read(next(clips[0]), out=wide, threads=threads),
        "int8": lambda: quantized.read_quantized(next(clips[1]), out=(levels, scales), threads=threads),
        "int8, widened": lambda: quantized.read(next(clips[2]), out=wide, threads=threads),
    }
    for store in (whole, quantized):
        store.read(np.arange(setting.n_clips))
    times = in_turn(calls, rounds=setting.rounds)
    return [
        claim(
            times, group=GROUP, what=f"float16 / {name}, a batch", over="float16", under=name, target=target
        )
        for name, target in (("int8", 1.0), ("int8, widened", None))
    ]


def _figure(what: str, value: float) -> Claim:
    """Counted or computed, not timed: the same in every round."""
    return Claim(group=GROUP, what=what, ratio=value, low=value, high=value, detail=f"layer {LAYER.name}")
