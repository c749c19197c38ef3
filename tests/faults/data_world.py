"""The part of the world that users bring themselves: videos with their lists and manifest, weather fields."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.featcache.data.readers.video.small_videos import write_video

if TYPE_CHECKING:
    from tests.faults.world import World

VIDEOS = ("h264.mp4", "lossless.mkv", "mpeg4.avi", "stream.ts")
N_FRAMES, CLIPS = 24, (0, 8)
MANIFEST = """
datasets:
  cages:
    title: Our cages
    source: lab server
    licence: unpublished
    citation: none yet
    version: "2026-11"
    reader: video_file
    classes: [resting, digging]
    background: resting
    splits:
      train: {{files: "{pattern}", clips: clips.csv}}
  sky:
    title: A sky
    source: "https://sky.org"
    licence: none
    citation: none
    version: "1"
    reader: weather_zarr
    variables: [height, warmth, moisture]
    frame_size: [7, 12]
    splits:
      train:
        files: era.zarr
        windows:
          {{first: "2000-01-02", last: "2000-01", n_frames: 3, step_hours: 12, every_hours: 12,
           offset_hours: 0}}
        n_clips: 4
tasks:
  cages:
    title: What do they do
    kind: classification
    splits: {{train: cages/train, val: cages/train}}
    clip: {{n_frames: 16, stride: 1, height: 32, width: 32}}
"""


def build_videos(world: "World") -> None:
    """A folder a container, each with two videos, the list of their clips, and a manifest."""
    for name in VIDEOS:
        folder = world.root / "videos" / name
        folder.mkdir(parents=True)
        write_video(folder / name, N_FRAMES)
        second = write_video(folder / "second" / name, N_FRAMES + 6)
        second.rename(folder / f"second{Path(name).suffix}")
        (folder / "second").rmdir()
        files = sorted(path.name for path in folder.iterdir())
        rows = [f"{file},{first},{'digging' if first else ''}" for file in files for first in CLIPS]
        (folder / "clips.csv").write_text("\n".join(["video,first_frame,labels", *rows]) + "\n")
        (folder / "manifest.yaml").write_text(MANIFEST.format(pattern=f"*{Path(name).suffix}"))


def build_weather(world: "World") -> None:
    """Three days of three fields, two hours a chunk, in the layout of version 2, with its manifest."""
    import xarray as xr

    folder = world.root / "weather"
    folder.mkdir()
    hours = np.arange(24, 24 + 72)
    rows, columns = np.mgrid[:7, :12]
    axes = ("time", "latitude", "longitude")
    fields = {
        name: (axes, (1000 * c + hours[:, None, None] + rows / 32 + columns / 2048).astype(np.float32))
        for c, name in enumerate(("height", "warmth", "moisture"))
    }
    coordinates = {
        "time": np.datetime64("2000-01-01", "ns") + hours * np.timedelta64(1, "h"),
        "latitude": np.linspace(-90, 90, 7, dtype=np.float32),
        "longitude": np.arange(0, 360, 30, dtype=np.float32),
    }
    encoding = {name: {"chunks": (2, 7, 12)} for name in fields}
    xr.Dataset(fields, coordinates).to_zarr(
        folder / "era.zarr", zarr_format=2, consolidated=True, encoding=encoding
    )
    (folder / "manifest.yaml").write_text(MANIFEST.format(pattern="*.mp4"))
