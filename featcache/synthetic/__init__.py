"""A miniature SciVid, drawn by rule: every data set of the benchmark in the official layout, in seconds.

It makes the whole pipeline runnable without a download, and its labels truly depend on what moves, so
baselines, shuffled frames and random weights land where theory says. `generate` writes one data set.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import cast

from featcache.errors import CallError
from featcache.synthetic.base import Generator, Progress, Sizes, sizes_of
from featcache.synthetic.folder import Note, claim, finish, held, write_whole

DATASETS: dict[str, str] = {
    "flyvsfly": "featcache.synthetic.flies:FLY_VIDEOS",
    "calms21": "featcache.synthetic.mice:MOUSE_VIDEOS",
    "movi": "featcache.synthetic.scenes:SCENES",
    "stir": "featcache.synthetic.tissue:TISSUE",
    "digital_typhoon": "featcache.synthetic.typhoon:TYPHOON",
    "weatherbench2": "featcache.synthetic.weather:WEATHER",
}
"""Data set of the manifest -> import path of its generator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What `generate` left on disk."""

    n_bytes: int
    n_written: int
    """Files written by this call; 0 where the same set was complete before. A Zarr store counts as one."""


def load_generator(name: str) -> Generator:
    """The generator of data set `name`.

    Raises:
        CallError: nothing of that name can be generated.
    """
    if name not in DATASETS:
        raise CallError(f"no generator for data set {name!r}: known are {', '.join(DATASETS)}.")
    module, _, attribute = DATASETS[name].partition(":")
    return cast(Generator, getattr(import_module(module), attribute))


def generate(
    name: str,
    data_dir: Path,
    *,
    profile: str | Sizes = "demo",
    seed: int = 0,
    workers: int = 2,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Write data set `name` below `data_dir`, under the official file names; cheap when it is there already.

    `profile` is a named size (`demo`, `tiny`) or the number of items of each split. Drawing and JPEG coding
    release the interpreter lock, so `workers` are threads: nothing is forked, nothing needs pickling.

    Raises:
        CallError: an unknown name, profile or split.
        DataError: `data_dir` holds data that were not generated, or cannot be written.
    """
    generator = load_generator(name)
    sizes = sizes_of(generator, profile)
    parts = {part.path: part for part in generator.parts(sizes)}
    wanted = Note(dataset=name, version=generator.version, seed=seed, sizes=sizes, files=dict.fromkeys(parts))
    with held(data_dir, wanted):
        todo = claim(data_dir, wanted)
        n_items, done = sum(len(parts[path].items) for path in todo), count(1)
        with ThreadPoolExecutor(workers) as pool:
            for path in todo:
                write = partial(generator.write, parts[path], seed=seed, pool=pool)
                write_whole(data_dir / path, partial(write, tick=lambda: progress(next(done), n_items)))
        note = finish(data_dir, wanted)
    return Summary(n_bytes=sum(filter(None, note.files.values())), n_written=len(todo))
