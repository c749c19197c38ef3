"""What a readout is given of a video's windows: stage one and stage two together, nothing written between.

A run says what made the tokens that it learned from. The same is made here of other videos: weights,
preprocessing, size, precision and rounding are the run's own, and other ones are refused.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int32
from torch import Tensor

from featcache.backbones import load_backbone
from featcache.backbones.base import Backbone
from featcache.data.labels.videos import ENDINGS, measure
from featcache.data.readers.base import named
from featcache.data.readers.video.in_order import frames_in_order
from featcache.data.readers.video.survey import survey
from featcache.data.sampling import frame_indices
from featcache.data.views import View, frame_pixels
from featcache.errors import CallError, DataError, WeightsError, listed
from featcache.extract.pixels.windows import Frame, Window, WindowRule, sliding_windows, whole_video
from featcache.fingerprint import differences
from featcache.manifest import Pixels
from featcache.spec import SHUFFLED, ClipSpec
from featcache.system.ahead import map_ahead
from featcache.system.device import PRECISIONS
from readouts.certify.online import as_stored, encoded
from readouts.training.loaded import TrainedRun

_WAY_OUT = "Copy it again from where it was recorded, or leave it out."

AHEAD = 2
"""Batches of windows that are decoded while the model is at one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A video by its header: nothing of it was decoded."""

    n_frames: int
    rate: Fraction
    """Frames a second."""
    width: int = 0
    height: int = 0


def measured(path: Path) -> Measured:
    """How long a video is, by the packets in it.

    Raises:
        DataError: it cannot be opened, or has no frame or rate.
    """
    try:
        with named(str(path), _WAY_OUT):
            found = measure(path, path.name)
    except OSError as problem:
        raise DataError(f"{path}: {problem.strerror}. {_WAY_OUT}") from None
    return Measured(
        n_frames=found.n_frames, rate=found.rate, width=found.width, height=found.height
    )  # fmt: skip


def frame_at(path: Path, number: int) -> Frame:
    """One frame of a video, RGB.

    Raises:
        DataError: the video is damaged, or ends before it.
    """
    with named(str(path), _WAY_OUT):
        for frame in islice(frames_in_order(path, 3), number, None):
            return frame
    raise DataError(f"{path} has no frame {number}. {_WAY_OUT}")


def find_videos(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and those below folders that end as videos do, each once.

    Raises:
        CallError: there are none.
    """
    found = dict[Path, None]()
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        of_folder = (one for one in inside if one.suffix.lower() in ENDINGS and one.name[0] != ".")
        found.update(dict.fromkeys(of_folder if path.is_dir() else inside))
    if not found:
        raise CallError(f"no video in {', '.join(map(str, paths))}: name files, or folders of them.")
    return list(found)


class Watcher:
    """A readout of a run and its backbone, which look at videos."""

    def __init__(
        self,
        run: TrainedRun,
        readout: str,
        *,
        backbone: str | None,
        weights_dir: Path | None,
        every: int | None,
        follows: bool = False,
        device: torch.device,
        batch: int,
    ) -> None:
        """Load the backbone that made the run's tokens.

        Args:
            run: loaded, whose tokens are of videos.
            readout: which of its heads.
            backbone: as a command names it; None for a registered one, which the run knows.
            weights_dir: where weights are looked for.
            every: frames from window to window; None for half a window.
            follows: whether a window begins in the last frame of the one before, as it needs its end.
            device: that computes.
            batch: windows in one pass.

        Raises:
            CallError: the run's tokens are not of videos, or of shuffled frames; or no such windows.
            WeightsError: weights are missing, or are not those that made the tokens.
        """
        parts = run.reads.parts
        self.spec = _clip_spec(run)
        self.run, self.readout, self.device, self.batch = run.to(device), readout, device, batch
        self.rule = _rule(self.spec, every, follows=follows)
        model = load_backbone(backbone or str(parts["backbone"]["name"]), weights_dir)
        if not run.takes_pixels:  # its weights are its own
            _refuse_other(model, run)
        self.channels = int(parts["decoding"]["channels"])
        # A whole backbone trains on clips at their own size, as it resizes them itself.
        once = model.info.resize_once and not run.takes_pixels
        self.size = model.info.input_size if once else None
        self.precision = PRECISIONS[parts["backbone"]["precision"]]
        self.encoder = None if run.takes_pixels else model.load(run.reads.layers, device, self.precision)
        last = parts["tokens"]["steps"]
        self.step_weights = None if last == "all" else torch.tensor(last["last"], device=device)

    def windows_in_words(self) -> str:
        """Which windows there are."""
        rule, spec = self.rule, self.spec
        cut = f"a window every {rule.every} frames" if rule.slides else "one window a video"
        return f"{spec.n_frames} frames with stride {spec.stride}, {cut}"

    def frames_shown(self, window: Window) -> Int32[np.ndarray, " n"]:
        """The frames that the model sees of a window, counted from its first."""
        return frame_indices(self.spec, window.stop - window.first)

    def outputs(self, given: Any, **inputs: Tensor) -> Float[Tensor, "B *outputs"]:
        """What the readout says of windows that `seen` gave, and of what it needs beside them."""
        found: Tensor = self.run(given, **inputs)[self.readout]
        return found

    def answers(self, path: Path) -> Iterator[tuple[Window, Float[np.ndarray, " O"]]]:
        """The windows of a video, and of each the probabilities or values that the readout gives.

        Raises:
            DataError: as `seen`.
        """
        for windows, given in self.seen(path):
            yield from zip(windows, self.run.answers(self.outputs(given)).cpu().numpy(), strict=True)

    def seen(self, path: Path, first: int = 0) -> Iterator[tuple[Sequence[Window], Any]]:
        """Some windows of a video at a time, in order, and what the run takes of them.

        They are decoded ahead of the model by a thread. Frames are counted from `first` on.

        Raises:
            DataError: the video is damaged, or cannot be read.
        """
        windows = self._windows(path, first)
        with named(str(path), _WAY_OUT), ThreadPoolExecutor(1, "decode") as pool:
            try:
                sizes = repeat(self.batch)
                for _, future in map_ahead(pool, lambda n: list(islice(windows, n)), sizes, window=AHEAD):
                    if not (some := future.result()):
                        return
                    pixels = torch.stack([window.pixels for window in some]).to(self.device)
                    yield some, self._taken(pixels)
            finally:
                pool.shutdown(cancel_futures=True)

    def _windows(self, path: Path, first: int) -> Iterator[Window]:
        frames = islice(frames_in_order(path, self.channels), first, None)
        if self.rule.slides:
            yield from sliding_windows(frames, self.rule, self._pixels)
        else:
            yield whole_video(frames, self.rule, self._pixels, survey(path).n_frames - first)

    def _pixels(self, frame: Frame) -> Float[Tensor, "C height width"]:
        return frame_pixels(torch.from_numpy(frame)[None], self.spec, View(), Pixels(), self.size)[0]

    def _taken(self, pixels: Float[Tensor, "B F rgb Y X"]) -> Any:
        """What the run takes of some windows: their pixels, or tokens, by layer where it reads several."""
        if self.encoder is None:
            return pixels
        tokens = encoded(self.encoder, pixels, self.run.reads.layers, self.step_weights)
        stored = {layer: self._as_stored(of_layer) for layer, of_layer in tokens.items()}
        return stored if len(stored) > 1 else next(iter(stored.values()))

    def _as_stored(self, tokens: Float[Tensor, "B T H W C"]) -> Float[Tensor, "B T N C"]:
        flat = rearrange(tokens, "b t h w c -> b t (h w) c")
        return as_stored(flat, precision=self.precision, dtype=self.run.reads.parts["tokens"]["dtype"])


def _rule(spec: ClipSpec, every: int | None, *, follows: bool) -> WindowRule:
    span = WindowRule(spec=spec, every=1).span
    if follows and every is not None:
        raise CallError(
            f"--every {every}: a window of points begins in the last frame of the one before: leave it out."
        )
    usual = span - 1 if follows else span // 2
    return WindowRule(spec=spec, every=max(1, usual) if every is None else every)


def _clip_spec(run: TrainedRun) -> ClipSpec:
    """How the run's clips were cut.

    Raises:
        CallError: they were no videos as they were filmed.
    """
    parts = run.reads.parts
    frames = dict(parts["frames"])
    if "pixels" in parts["decoding"] or frames.pop("order") != "as filmed":
        raise CallError(
            f"{run.folder.path} did not learn from videos as they were filmed ({parts['decoding']['reader']},"
            f" {parts['frames']['order']}): it predicts clips of stores alone (--store)."
        )
    return ClipSpec(**frames)


def _refuse_other(model: Backbone, run: TrainedRun) -> None:
    parts = run.reads.parts
    theirs = {
        "backbone": {name: parts["backbone"][name] for name in ("architecture", "weights")},
        "preprocessing": parts["preprocessing"],
    }
    ours = {
        "backbone": {"architecture": model.architecture(), "weights": model.weights_digest()},
        "preprocessing": model.preprocessing(),
    }
    if unlike := differences(theirs, ours):
        raise WeightsError(
            f"{run.folder.path} did not learn from this {model.info.name.removesuffix(SHUFFLED)}:\n"
            f"{listed(unlike)}\n(here: the run; asked for: the model.) Name the weights it learned from "
            "(--weights-dir), or its file (--backbone my_model.py:BACKBONE)."
        )
