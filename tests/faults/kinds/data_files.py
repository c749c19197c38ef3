"""Kinds of files that come from elsewhere: records, videos, clip lists, manifests, weather fields."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from featcache.data.readers import open_reader
from featcache.manifest import load_manifest
from featcache.synthetic import generate
from tests.faults.data_world import VIDEOS
from tests.faults.digests import digest
from tests.faults.kinds.base import Kind
from tests.faults.world import SIZES, World

Numbers = Mapping[str, Any]
SPLIT = "train"
_TEXT = {"*": "a user's own text: another letter is another wish"}
_PAYLOAD = {
    "bytes": "no checksum covers a codec's payload: other numbers",
    "peer": "another file under this name: nothing says which it was",
    "stranger": "another file under this name: nothing says which it was",
    "swap": "another file under this name: nothing says which it was",
}


def records(world: World, damaged: Path) -> Numbers:
    """Every frame and target of the record files, whatever their order: a file has no name in its bytes."""
    found = []
    reader = open_reader(load_manifest().dataset("digital_typhoon"), "val", world.data)
    index = reader.scan().index
    for number in range(len(index)):
        clip = index.clip(number)
        frames = reader.read(clip, range(0, clip.n_source, 6))
        found.append(digest((clip.n_source, clip.labels, frames, dict(reader.targets(clip)))))
    return {"clips": sorted(found)}


def videos(world: World, damaged: Path) -> Numbers:
    """The frames that the clips of a list show, by its manifest."""
    folder = damaged.parent
    dataset = load_manifest(folder / "manifest.yaml").dataset("cages")
    reader = open_reader(dataset, SPLIT, folder)
    scan = reader.scan()
    found: dict[str, Any] = {}
    for line in scan.notes:
        print(line)  # noqa: T201  (as extract does)
    for number in range(len(scan.index)):
        clip = scan.index.clip(number)
        found[f"clip {clip.id}"] = (clip.n_source, clip.labels)
        found[f"frames {clip.id}"] = reader.read(clip, range(0, min(clip.n_source, 16), 5))
    return found


def weather(world: World, _: Path) -> Numbers:
    """Every window of fields, with coordinates and times."""
    folder = world.root / "weather"
    reader: Any = open_reader(load_manifest(folder / "manifest.yaml").dataset("sky"), SPLIT, folder)
    scan = reader.scan()
    found: dict[str, Any] = {name: _places(getattr(reader, name)) for name in ("latitude", "longitude")}
    for line in scan.notes:
        print(line)  # noqa: T201
    for number in range(len(scan.index)):
        clip = scan.index.clip(number)
        steps = reader.time_steps(clip, range(clip.n_source))
        found[f"fields {clip.id}"] = (reader.fields(steps), reader.times(steps).astype(np.int64))
    return found


def _places(degrees: np.ndarray) -> np.ndarray:
    """Coordinates in tenths of a step: the reader takes for one place what differs by a hundredth."""
    return np.round(degrees / np.median(np.abs(np.diff(degrees))), 1)


def of_container(name: str) -> Kind:
    suffix = Path(name).suffix
    return Kind(
        name=f"video, {suffix[1:]}",
        files=(f"videos/{name}/*{suffix}",),
        without=("huge",),
        read=videos,
        folders=("videos",),
        allowed=_PAYLOAD,
    )


def made_again(world: World, damaged: Path) -> Numbers:
    """As `data demo` finds its own set complete, or writes it anew."""
    generate("digital_typhoon", world.data, profile=SIZES, seed=0)
    return {path.name: path.read_bytes() for path in sorted(damaged.parent.iterdir()) if path.is_file()}


_DEMO = "data/full/digital_typhoon_slim"
_RECORDS = "data/full/digital_typhoon_slim/val_*"
_ZARR = "weather/era.zarr"
KINDS = (
    Kind(name="records", files=(_RECORDS,), without=("huge",), read=records, folders=(_RECORDS,)),
    Kind(name="note of data demo", files=(f"{_DEMO}/synthetic.json",), read=made_again, folders=(_DEMO,)),
    *map(of_container, VIDEOS),
    Kind(name="clip list", files=("videos/*/clips.csv",), read=videos, folders=("videos",), allowed=_TEXT),
    Kind(name="manifest", files=("videos/*/manifest.yaml",), read=videos, folders=("videos",), allowed=_TEXT),
    Kind(
        name="weather metadata",
        files=(f"{_ZARR}/.zmetadata", f"{_ZARR}/*/.z*"),
        read=weather,
        folders=("weather",),
    ),
    Kind(
        name="weather coordinates",
        files=(f"{_ZARR}/latitude/0", f"{_ZARR}/longitude/0", f"{_ZARR}/time/0"),
        read=weather,
        folders=("weather",),
    ),
    Kind(
        name="weather chunk",
        files=tuple(f"{_ZARR}/{name}/{n}.0.0" for name in ("height", "moisture") for n in range(0, 36, 6)),
        read=weather,
        folders=("weather",),
        allowed=_PAYLOAD,
    ),
)
