"""Several jobs at once on a fresh cache: none is lost, and the bytes are those of one after the other.

With locks, without them, and where they are granted to everybody (as some network file systems do).
`SCIVID_ROUNDS=50 python -m pytest tests/test_jobs_at_once.py` runs more rounds than the suite does.
"""

import errno
import fcntl
import os
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from cli import app

ROUNDS = int(os.environ.get("SCIVID_ROUNDS", "1"))
IMPORTED = [
    "cli", "pyarrow.dataset", "rich.progress", "featcache.backbones.families.resize", "featcache.extract.run",
    "featcache.data.readers.sequence_example.reader", "array_record.python.array_record_module",
]  # fmt: skip
"""By the process that the jobs are forks of."""

OWN_MODEL = """
from dataclasses import replace
from featcache.backbones import load_backbone

class Own:
    def __init__(self):
        self.info = replace(RESIZE.info, name="own")
    def __getattr__(self, name):
        return getattr(RESIZE, name)

RESIZE = load_backbone("resize", None)
OWN = Own()
"""

JOBS = {
    "of one array": [("resize", "val"), ("{own}:OWN", "val"), ("resize", "test")],
    "of one store": [("resize", "val")] * 3,
}
"""Model and split; the first ones share the clip index and the targets."""


def job(words: list[str], locks: str, start: Barrier, said: Path) -> None:
    """The command line in a process of its own, begun with the others."""
    with said.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)

        def flock(fd: object, operation: int) -> None:
            if locks == "none":
                raise OSError(errno.ENOLCK, "No locks available")

        if locks != "kept":
            fcntl.flock = flock
        start.wait(60)
        app(words)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "runs.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def run(jobs: str, locks: str, data: Path, cache: Path, *, at_once: int) -> None:
    """The jobs of a round; none is lost."""
    own = cache.with_suffix(".py")
    own.write_text(OWN_MODEL)
    forks = get_context("forkserver")
    forks.set_forkserver_preload(IMPORTED)
    for first in range(0, 3, at_once):
        start, running = forks.Barrier(at_once), []
        for number, (backbone, split) in enumerate(JOBS[jobs][first : first + at_once]):
            words = [
                "extract",
                "--backbone",
                backbone.format(own=own),
                "--task",
                "flyvsfly",
                "--split",
                split,
            ]
            words += ["--shard-mb", "1", "--batch", "2", "--data-dir", str(data), "--cache-dir", str(cache)]
            said = cache.with_suffix(f".{first + number}.txt")
            running.append((said, forks.Process(target=job, args=(words, locks, start, said))))
        for _, process in running:
            process.start()
        for said, process in running:
            process.join(120)
            assert process.exitcode == 0, said.read_text()


@pytest.fixture(scope="module", params=JOBS)
def alone(
    request: pytest.FixtureRequest, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, bytes]]:
    """Which jobs, and what they leave behind one after the other."""
    cache = tmp_path_factory.mktemp("alone") / "cache"
    run(request.param, "kept", tiny_data, cache, at_once=1)
    return request.param, contents(cache)


@pytest.mark.slow
@pytest.mark.parametrize("locks", ["kept", "none", "granted to all"])
def test_jobs_at_once_on_a_fresh_cache(
    tiny_data: Path, tmp_path: Path, alone: tuple[str, dict[str, bytes]], locks: str
) -> None:
    jobs, left = alone
    if jobs == "of one store" and locks == "kept":
        pytest.skip("where there are locks, one store is written by one process")
    for number in range(ROUNDS):
        cache = tmp_path / str(number)
        run(jobs, locks, tiny_data, cache, at_once=3)
        assert contents(cache) == left
