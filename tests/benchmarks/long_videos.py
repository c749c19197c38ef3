"""Peak memory of `scivid predict` and `scivid data init` as a video gets longer: it must not grow.

    python -m tests.benchmarks.long_videos [--hours 1,10] [--dir demo/long]

A readout is trained on a small lab's recordings, then looks at one video after the other, each in a process
of its own. The backbone is `resize`, which has no weights: a model's own memory does not depend on the video.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.peak_memory import Memory, memory_of
from tests.own_recordings import RATE, bouts_of, write_lab, write_recording

SCIVID = [sys.executable, "-m", "cli"]
SETTINGS = ["steps=60", "batch=8", "width=16", "heads=2", "minival_every=60"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One command on one video."""

    command: str
    hours: float
    memory: Memory


def long_video(folder: Path, hours: float) -> Path:
    """A folder with a video of so many hours, and a table of its bouts."""
    n_frames = round(3600 * hours * RATE)
    folder.mkdir(parents=True)
    bouts = bouts_of(0, n_frames)
    write_recording(folder / "long.mp4", bouts, n_frames)
    rows = (f"long.mp4,{float(first / RATE)},{float(stop / RATE)},{label}" for label, first, stop in bouts)
    (folder / "bouts.csv").write_text("\n".join(["video,start,stop,label", *rows, ""]))
    return folder


def trained(folder: Path, log: Path) -> Path:
    """The results of a readout that learned from a small lab's recordings, of clips four frames apart."""
    lab, results = write_lab(folder / "mice"), folder / "results"
    where = ["--manifest", lab / "scivid.yaml", "--cache-dir", folder / "features", "--device", "cpu"]
    chosen = [word for setting in SETTINGS for word in ("--set", setting)]
    name = ["--backbone", "resize", "--task", "mice"]
    memory_of([*SCIVID, "data", "init", lab, "--frames", "8", "--stride", "4"], log)
    memory_of([*SCIVID, "extract", *name, *where, "--data-dir", lab], log)
    memory_of([*SCIVID, "train-readout", *name, *where, *chosen, "--results-dir", results], log)
    (run,) = (results / "mice").glob("resize-*")
    return run


def measured(hours: Sequence[float], folder: Path) -> list[Measurement]:
    """Both commands at every length, in `folder`, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log, found = folder / "log.txt", []
    run = trained(folder, log)
    for length in hours:
        videos = long_video(folder / f"{length:g}h", length)
        out = ["--out", videos / "t.parquet", "--out", videos / "t.boris", "--device", "cpu"]
        commands = {
            "data init": [*SCIVID, "data", "init", videos, "--frames", "8", "--stride", "4"],
            "predict": [*SCIVID, "predict", videos, "--run", run, *out, "--every", "16", "--smooth", "2"],
        }
        for name, command in commands.items():
            found.append(Measurement(command=name, hours=length, memory=memory_of(command, log)))
            sys.stderr.write(f"{found[-1]}\n")
    return found


def table(found: Sequence[Measurement]) -> str:
    """Markdown: MB that the process allocated, at its peak and when steady."""
    lines = ["| command | hours | peak MB | steady MB |", "|---|---|---|---|"]
    rows = sorted(found, key=lambda one: (one.command, one.hours))
    cells = (
        f"{one.command} | {one.hours:g} | {one.memory.peak:.0f} | {one.memory.steady:.0f}" for one in rows
    )
    return "\n".join([*lines, *(f"| {row} |" for row in cells)])


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print the table, write every number to `long_videos.json`."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--hours", default="1,10", help="with commas; default: %(default)s")
    parser.add_argument("--dir", type=Path, default=Path("demo/long"), help="for what is made meanwhile")
    given = parser.parse_args(words)
    found = measured([float(length) for length in given.hours.split(",")], given.dir)
    (given.dir / "long_videos.json").write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    sys.stdout.write(f"{table(found)}\n")


if __name__ == "__main__":
    main()
