"""A process that is told to end says how to go on, has the signal's code, and waits for nothing for long."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featcache.errors import CallError
from featcache.system.ending import ending_of, stops_raised

BEGIN = """
import os, signal, sys, threading, time
from featcache.system import ending
from featcache.system.ending import ending_of, stops_raised
ending.GRACE = 0.5
with stops_raised():
    try:
        print("begun", flush=True)
        {work}
    except BaseException as problem:
        message, code = ending_of(problem)
        print(message, file=sys.stderr)
        {tidying}
        sys.exit(code)
"""


def told_to_end(*numbers: int, work: str = "time.sleep(30)", tidying: str = "pass") -> tuple[int, str]:
    """Exit code and standard error of a process that is sent signals, one after the other."""
    code = BEGIN.format(work=work, tidying=tidying)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.5)  # for the work to be under way
        for earlier in numbers[:-1]:
            process.send_signal(earlier)
            assert "stopped" in process.stderr.readline()
        process.send_signal(numbers[-1])
        _, said = process.communicate(timeout=30)
        return process.returncode, said


@pytest.mark.parametrize(
    ("number", "by"),
    [
        (signal.SIGINT, ""),
        (signal.SIGTERM, " by SIGTERM"),
        (signal.SIGHUP, " by SIGHUP"),
        (signal.SIGUSR1, " by SIGUSR1"),
    ],
)
def test_a_batch_systems_signal_says_that_the_same_command_goes_on(number: int, by: str) -> None:
    code, said = told_to_end(number)
    assert (code, said) == (128 + number, f"stopped{by}. Run the same command again to go on from here.\n")


def test_ctrl_c_twice_ends_at_once_and_without_a_traceback() -> None:
    code, said = told_to_end(signal.SIGINT, signal.SIGINT, tidying="ending.GRACE = 60; time.sleep(30)")
    assert code == 130
    assert "ended at once" in said
    assert "Traceback" not in said


def test_a_thread_that_does_not_end_is_not_waited_for() -> None:
    stuck = "threading.Thread(target=time.sleep, args=(30,)).start(); time.sleep(30)"
    code, said = told_to_end(signal.SIGTERM, work=stuck)
    assert code == 143
    assert "stopped by SIGTERM" in said and "ended at once" in said


def test_a_call_into_other_code_that_does_not_return_is_not_waited_for() -> None:
    """The main thread sees no signal there, as in one long pass of a model."""
    deep = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2 * 10**8)"
    code, said = told_to_end(signal.SIGTERM, work=deep)
    assert code == 143
    assert "ended at once" in said


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stops_raised():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_was_there_before_is_there_after() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stops_raised():
        assert signal.getsignal(signal.SIGTERM) != handlers[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_what_is_told_of_an_error() -> None:
    assert ending_of(CallError("wrong")) == ("wrong", 2)
    assert ending_of(ValueError("a bug of ours")) is None
    told = ending_of(OSError(errno.EIO, "Input/output error", "some/file"))
    assert told is not None and told[1] == 1
    assert told[0].startswith("some/file: Input/output error. ")
    assert "run the same command again" in told[0]


PRINT = """
import sys
import typer
from rich.console import Console
from featcache.system import console
from featcache.system.ending import ending_of

class Plain(Console):
    def on_broken_pipe(self):
        raise

console.prepare_output()
try:
    for _ in range(9999):
        {line}
    console.flush_output()
except BaseException as problem:
    message, code = ending_of(problem)
    print(message, file=sys.stderr, end="")
    sys.exit(code)
"""


@pytest.mark.parametrize("line", ["typer.echo('a line')", "Plain().print('a line')"])
def test_a_reader_that_has_seen_enough_is_no_error(line: str) -> None:
    command = f'{sys.executable} -c "$1" | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command, "bash", PRINT.format(line=line)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, "a line\n", "")


@pytest.mark.parametrize("line", ["typer.echo('a line')", "Plain().print('a line')"])
def test_a_log_on_a_full_disk_is_one_message(line: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINT.format(line=line)], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("standard output cannot be written (No space left on device): send it")
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_streams_that_are_closed_are_not_those_of_the_next_file(tmp_path: Path) -> None:
    """What a library prints would be in a shard."""
    code = (
        "import os, sys; from featcache.system import console; console.prepare_output()\n"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT); os.write(2, b'one'); os.write(1, b'more')\n"
        "console.flush_output(); sys.exit(fd)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "shard")]
    done = subprocess.run(["bash", "-c", '"$@" >&- 2>&- <&-', "bash", *command], check=False)
    assert done.returncode > 2
    assert (tmp_path / "shard").read_bytes() == b""
