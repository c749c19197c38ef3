"""A finished cache on a disk that may only be read: whatever only reads works, and does not try to write."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import app

# In a process of its own, as such a hook stays.
READ_ONLY = """
import errno, os, sys
from typer.testing import CliRunner

cache, words = sys.argv[1], [line.split() for line in sys.argv[2:]]
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate"}

def refuse(event, arguments):
    if event == "open":
        path, _, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    else:
        path, writes = arguments[:1] or (None,), event in CHANGES
        path = path[0]
    if writes and isinstance(path, str) and path.startswith(cache):
        raise OSError(errno.EROFS, "Read-only file system", path)

from cli import app
sys.addaudithook(refuse)
for one in words:
    result = CliRunner().invoke(app, one)
    print(one[0], result.exit_code, result.output, result.exception or "", sep="\\n")
    if result.exit_code:
        sys.exit(1)
try:
    open(cache + "/a", "w")
except OSError:
    sys.exit(0)
sys.exit("nothing was refused")
"""


@pytest.mark.slow
def test_a_finished_store_on_a_read_only_cache_is_found_and_trained_from(
    tiny_data: Path, tmp_path: Path
) -> None:
    cache, results = tmp_path / "features", tmp_path / "results"
    extract = f"extract --backbone resize --task flyvsfly --data-dir {tiny_data} --cache-dir {cache}"
    first = CliRunner().invoke(app, extract.split())
    assert first.exit_code == 0, first.output
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    where = f"--cache-dir {cache} --results-dir {results}"
    train = f"train-readout --backbone resize --task flyvsfly --readout linear --set steps=2 {where}"
    commands = [
        extract, f"list stores --cache-dir {cache}", train, f"report {where} --out {tmp_path}/report.html",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(cache), *commands],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
def test_what_is_not_there_cannot_be_made_on_a_read_only_cache(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    extract = f"extract --backbone resize --task flyvsfly --split val --data-dir {tiny_data}"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            READ_ONLY,
            str(tmp_path / "features"),
            f"{extract} --cache-dir {tmp_path}/features",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert "the clip index cannot be kept" in done.stdout
    assert (
        f"{tmp_path}/features/flyvsfly/val: Read-only file system. It can only be read there" in done.stdout
    )
    assert "Traceback" not in done.stdout + done.stderr
