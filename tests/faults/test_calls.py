"""Calls on files are counted, fail when they are told to, and half a write is half a write."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import errno, json, os, sys
from pathlib import Path
from tests.faults.calls import Act, Calls

folder, act = Path(sys.argv[1]), json.loads(sys.argv[2])
calls = Calls.below(folder, act=None if act is None else Act(**act))
calls.install()
out = {}
try:
    (folder / "a").write_bytes(b"12345678")
    (folder / "a").read_bytes()
    fd = os.open(folder / "b", os.O_CREAT | os.O_WRONLY)
    os.writev(fd, [b"1234", b"5678"])
    os.fsync(fd)
    os.close(fd)
    os.replace(folder / "b", folder / "c")
    Path("/dev/null").read_bytes()
except OSError as problem:
    out = {"errno": problem.errno, "file": problem.filename}
sys.stdout.write(json.dumps({**out, "calls": [call.name for call in calls.made]}))
"""
CALLS = ["create", "write", "open", "read", "create", "writev", "fsync", "replace"]


def played(folder: Path, act: dict[str, Any] | None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(folder), json.dumps(act)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The calls of an undisturbed process."""
    done = played(tmp_path_factory.mktemp("calm"), None)
    return list(json.loads(done.stdout)["calls"])


def test_calls_below_the_folder_are_counted_and_no_others(made: list[str]) -> None:
    assert [name for name in made if name not in ("fstat", "stat")] == CALLS


@pytest.mark.parametrize("number", [0, 2, 3, 5, 6, 7])
def test_a_call_can_fail(tmp_path: Path, made: list[str], number: int) -> None:
    at = [i for i, name in enumerate(made) if name in CALLS][number]
    found = json.loads(played(tmp_path, {"at": at, "errno": 5}).stdout)
    assert found["errno"] == 5
    assert found["calls"] == made[: at + 1]
    # As the kernel has it: an error of an open file names none.
    assert (found["file"] is not None) == (CALLS[number] in ("create", "open", "replace"))


def test_half_a_write_and_then_the_end(tmp_path: Path, made: list[str]) -> None:
    done = played(tmp_path, {"at": made.index("writev"), "half": True})
    assert done.returncode == -9
    assert (tmp_path / "b").read_bytes() == b"1234"
