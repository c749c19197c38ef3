"""A small lab's recordings: videos in which one can see what happens, and a table of their bouts."""

import csv
from fractions import Fraction
from pathlib import Path

import av  # noqa: TID253  (it writes what the readers of videos read)
import numpy as np

RATE = Fraction(25, 2)
SIZE = (48, 64)
CLASSES = {"dig": (200, 60, 40), "rest": (30, 60, 200)}
"""Class -> the colour of the screen while it happens; grey otherwise."""


def bouts_of(seed: int, n_frames: int) -> list[tuple[str, int, int]]:
    """Class, first frame and the frame after the last, with grey between."""
    rng, at, found = np.random.default_rng(seed), 6, []
    while at + 45 < n_frames:
        length = int(rng.integers(24, 40))
        found.append((list(CLASSES)[len(found) % 2], at, at + length))
        at += length + int(rng.integers(8, 30))
    return found


def write_recording(path: Path, bouts: list[tuple[str, int, int]], n_frames: int, seed: int = 0) -> Path:
    """A video that shows its bouts."""
    rng = np.random.default_rng(seed)
    colours = np.full((n_frames, 3), 110)
    for name, first, stop in bouts:
        colours[first:stop] = CLASSES[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for colour in colours:
            pixels = np.clip(colour + rng.integers(-12, 13, (*SIZE, 3)), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_lab(folder: Path, *, n_videos: int = 6, n_frames: int = 240) -> Path:
    """Videos `mouse1_a.mp4` ... and `bouts.csv`, whose times are seconds."""
    rows = []
    for number in range(n_videos):
        name, bouts = f"mouse{number // 2 + 1}_{'ab'[number % 2]}.mp4", bouts_of(number, n_frames)
        write_recording(folder / name, bouts, n_frames, number)
        rows += [(name, float(first / RATE), float(stop / RATE), label) for label, first, stop in bouts]
    with (folder / "bouts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("video", "start", "stop", "label"))
        writer.writerows(rows)
    return folder
