"""One readout step from the cache beside the same step with the backbone run for its clips: VideoMAE-B.

On a CPU a pass of one clip is timed and counted as often as a batch needs it: there the time of a pass grows
with its clips, so this is the step that an online pipeline takes, without the minutes of measuring it. On a
GPU a whole batch is passed, in bfloat16. Decoding is left out, in the online pipeline's favour.
"""

import numpy as np
import torch

from featcache.backbones import load_backbone
from featcache.system.device import choose_device, choose_precision
from tests.benchmarks.feed import feed_of
from tests.benchmarks.side_by_side import Claim, in_turn
from tests.benchmarks.stores import FULL, SMALL
from tests.benchmarks.training import Loop

GROUP = "online"
STEPS_OF_A_READOUT = 40_000
TRAIN_CLIPS = {"calms21": 26_970, "flyvsfly": 1_067_008}


def measure(small: bool) -> list[Claim]:
    """The ratio of a step, and after how many readouts extraction has paid."""
    setting, name = (SMALL, "videomae_random") if small else (FULL, "videomae_random_b")
    n_steps, rounds, width, heads = (2, 1, 32, 2) if small else (6, 5, 1024, 16)
    backbone = load_backbone(name)
    info = backbone.info
    device = choose_device("auto")
    at_once = 1 if device.type == "cpu" else setting.batch
    encoder = backbone.load((info.last_layer,), device, choose_precision("auto", device))
    pixels = torch.rand(at_once, info.n_frames, 3, *info.input_size, device=device)
    with feed_of(setting, n_steps) as feed:
        held = feed.held(device)
        loop = Loop(setting.grid.channels, setting.grid.steps, width=width, heads=heads, device=device)
        times = in_turn(
            {
                "cached": lambda: loop.run(feed.read(device)),
                "head": lambda: loop.run(iter(held)),
                "pass": lambda: encoder(pixels),
            },
            rounds=rounds,
        )
    cached, head = (np.asarray(times[rival]) / n_steps for rival in ("cached", "head"))
    return _claims(name, setting.batch, cached, head, np.asarray(times["pass"]) / at_once)


def _claims(name: str, batch: int, cached: np.ndarray, head: np.ndarray, a_clip: np.ndarray) -> list[Claim]:
    """From seconds, a round each: of a step from the cache, of a step from memory, of one clip's pass."""
    online = batch * a_clip + head
    saved = STEPS_OF_A_READOUT * (online - cached)
    detail = ", ".join(
        f"{what} {np.median(seconds):.3g} s"
        for what, seconds in (("online step", online), ("cached step", cached), ("pass of a clip", a_clip))
    )
    ratios = [("a step with the backbone over one from the cache", online / cached)]
    ratios += [
        (
            f"readouts of {STEPS_OF_A_READOUT:,} steps after which extracting {task} has paid",
            n * a_clip / saved,
        )
        for task, n in TRAIN_CLIPS.items()
    ]
    return [_claim(f"{name}: {what}", values, detail) for what, values in ratios]


def _claim(what: str, values: np.ndarray, detail: str) -> Claim:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Claim(group=GROUP, what=what, ratio=middle, low=low, high=high, detail=detail)
