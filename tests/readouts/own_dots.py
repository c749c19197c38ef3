"""Videos of moving dots, and a tracker that was trained on them: made once, by a user's commands."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from typer.testing import CliRunner

from cli import app
from featcache.store.feature_store import FeatureStore, find_stores
from readouts.results.run_folder import RunFolder
from tests.own_measurements import write_dots, write_points

N_FRAMES = 8
"""Of a clip."""


@dataclass(frozen=True, kw_only=True)
class Dots:
    """Where things lie; for reading only."""

    videos: Path
    cache: Path
    folder: RunFolder

    def store(self, role: str) -> FeatureStore:
        (store,) = find_stores(self.cache, "dots", role)
        return store


def scivid(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def make_dots(root: Path) -> Dots:
    """In a folder of its own."""
    videos = write_dots(root / "dots")
    write_points(videos, "dlc.csv")
    scivid("data", "init", videos, "--frames", N_FRAMES, "--stride", "1", "--every", "6")
    common = ["--manifest", videos / "scivid.yaml", "--backbone", "resize", "--task", "dots"]
    cache = ["--cache-dir", root / "features"]
    scivid("extract", *common, "--data-dir", videos, *cache)
    settings = ["steps=30", "warmup=3", "minival_every=30", "lr=3e-3", "width=16", "heads=2"]
    words = [word for setting in settings for word in ("--set", setting)]
    scivid("train-readout", *common, *cache, "--results-dir", root / "results", *words, "--device", "cpu")
    (run,) = (root / "results" / "dots").glob("resize-*")
    return Dots(videos=videos, cache=root / "features", folder=RunFolder(run))


def write_table(path: Path, video: str, frame: int, xy: Float[np.ndarray, "Q 2"]) -> Path:
    """Points that begin in one frame, in pixels."""
    rows = [f"{video},{frame},p{number},{x},{y}" for number, (x, y) in enumerate(xy.tolist())]
    path.write_text("\n".join(["video,frame,name,x,y", *rows]) + "\n")
    return path
