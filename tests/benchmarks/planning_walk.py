"""How much an extraction walks about between its files before the first pixel, and looks at its store.

    PYTHONPATH=<a checkout> python tests/benchmarks/planning_walk.py

It extracts the tiny mouse videos with `resize`, once into an empty cache and once more when the store is
finished, and prints a JSON line of counts for each. A stay is a call that enters a file of `featcache/` from
another one of them; what counts are those that carry the whole job (an argument is the extraction, or the
prepared one), because each such step can look up anew what an earlier one has found. It needs nothing of the
checkout but the command, so it measures older ones too.
"""

import json
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import cli
import featcache
from featcache.synthetic import generate

PACKAGE = Path(featcache.__file__).parent
JOBS = ("Extraction", "Prepared")
"""Names of the classes that carry the whole job."""


@dataclass
class Walk:
    """What one command did, counted while it ran."""

    stays: Counter[str] = field(default_factory=Counter)
    """File -> how often a call with the job entered it from another file of the package."""
    entries: int = 0
    """Calls from one file of the package into another, whatever they carry."""
    reads: Counter[str] = field(default_factory=Counter)
    """Store -> how often its root `zarr.json` was opened to be read, until the command ended."""
    parses: int = 0
    """How often a store's header was made of such a file's content."""
    planning: bool = False
    """From the call of `extract_all` until the first clip's frames are decoded."""

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """A profiler's hook: counts calls."""
        if event != "call" or not (here := _file(frame)):
            return
        if frame.f_code.co_name == "from_metadata":
            self.parses += 1
        if frame.f_code.co_name == "extract_all" and not self.entries:
            self.planning = True
        if frame.f_code.co_qualname.endswith("Reader.read"):
            self.planning = False
        came_from = _caller(frame)
        if not self.planning or came_from in (None, here):
            return
        self.entries += 1
        arguments = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
        if any(_is_job(frame.f_locals.get(name)) for name in arguments):
            self.stays[here] += 1

    def opened(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook: counts the roots of stores that are opened to be read."""
        if event == "open" and isinstance(arguments[0], str) and "r" in str(arguments[1]):
            path = Path(arguments[0])
            if path.name == "zarr.json" and path.parent.suffix == ".zarr":
                self.reads[path.parent.name] += 1

    def summary(self) -> dict[str, object]:
        """The counts, for one line of JSON."""
        stays = self.stays.total()
        return {
            "stays with the job": stays,
            "of them returns": stays - len(self.stays),
            "files": dict(self.stays.most_common()),
            "all entries": self.entries,
            "reads of zarr.json": {name: n for name, n in self.reads.items() if name.startswith("resize-")},
            "headers parsed": self.parses,
        }


def _file(frame: FrameType) -> str:
    """The frame's file below the package; empty elsewhere."""
    path = frame.f_code.co_filename
    return path[len(str(PACKAGE)) + 1 :] if path.startswith(f"{PACKAGE}/") else ""


def _caller(frame: FrameType) -> str | None:
    """The file of the package that the call came from, whatever libraries lie between."""
    outer = frame.f_back
    while outer is not None:
        if found := _file(outer):
            return found
        outer = outer.f_back
    return None


def _is_job(value: object) -> bool:
    return type(value).__name__ in JOBS


def walk_of(folder: Path) -> Walk:
    """Run the extraction of the training split below `folder`, and count."""
    walk, hooked = Walk(), True
    sys.addaudithook(lambda event, arguments: walk.opened(event, arguments) if hooked else None)
    threading.setprofile(walk.note)
    sys.setprofile(walk.note)
    try:
        cli.extract(
            backbone="resize", task="calms21", split="train", device="cpu", decode_threads=1,
            data_dir=folder / "data", cache_dir=folder / "features",
        )  # fmt: skip
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        hooked = False
    return walk


def main() -> None:
    """Print what a first extraction did, and one that found everything done."""
    cli.console.quiet = True
    with TemporaryDirectory() as name:
        folder = Path(name)
        generate("calms21", folder / "data", profile="tiny", seed=0)
        for what in ("fresh", "finished"):
            print(json.dumps({"walk": what, **walk_of(folder).summary()}))  # noqa: T201


if __name__ == "__main__":
    main()
