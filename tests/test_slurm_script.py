"""The script for SLURM, run by bash as its tasks are: told that the time is over, it has itself requeued."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.arrays import MODEL, contents

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "docs" / "slurm" / "extract.sbatch"


def programs(folder: Path) -> Path:
    """The command line, and a `scontrol` that writes down what it is asked for."""
    folder.mkdir()
    (folder / "scivid").write_text(f'#!/bin/bash\nexec {sys.executable} -m cli "$@"\n')
    (folder / "scontrol").write_text(f'#!/bin/bash\necho "$@" >> {folder}/asked\n')
    for program in folder.iterdir():
        program.chmod(0o755)
    return folder


def task(number: int, restart: int, bin_: Path, words: list[str], said: Path) -> subprocess.Popen[bytes]:
    """One task of an array of two, as SLURM begins it."""
    environment = {
        **os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": str(50 + number), "SLURM_ARRAY_JOB_ID": "50", "SLURM_ARRAY_TASK_ID": str(number),
        "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "1", "SLURM_ARRAY_TASK_COUNT": "2",
        "SLURM_ARRAY_TASK_STEP": "1", "SLURM_RESTART_COUNT": str(restart),
    }  # fmt: skip
    with said.open("ab") as output:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *words],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def words_for(model: Path, data: Path, cache: Path) -> list[str]:
    return [
        "--backbone", f"{model}:BACKBONE", "--task", "flyvsfly", "--split", "train", "--batch", "1",
        "--shard-mb", "1", "--views", "2", "--device", "cpu",
        "--data-dir", str(data), "--cache-dir", str(cache),
    ]  # fmt: skip


def n_shards(cache: Path) -> int:
    return len(list(cache.glob("*/*/slow-*.zarr/*/c.*.0.0.0.0.0")))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_task_that_is_told_to_end_lets_go_and_is_requeued_where_its_time_is_over(
    tiny_data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    model, cache, said = tmp_path / "slow_model.py", tmp_path / "cache", tmp_path / "said"
    model.write_text(MODEL)
    bin_, words = programs(tmp_path / "bin"), words_for(model, tiny_data, cache)
    first = task(0, 0, bin_, words, said)
    while first.poll() is None and n_shards(cache) < 2:
        time.sleep(0.01)
    first.send_signal(number)
    assert first.wait(120) == 128 + number, said.read_text()
    assert f"stopped by {number.name}" in said.read_text()
    # After SIGTERM it is SLURM's to decide: it comes of a preemption, and of scancel.
    asked = bin_ / "asked"
    assert (asked.read_text() if asked.exists() else "") == (
        "requeue 50_0\n" if number == signal.SIGUSR1 else ""
    )
    assert not list(cache.glob("*/*/*.zarr/claims/*"))
    if number != signal.SIGUSR1:
        return
    before = n_shards(cache)
    for which, restart in ((0, 1), (1, 0)):
        assert task(which, restart, bin_, words, said).wait(120) == 0, said.read_text()
    assert "; the store is complete" in said.read_text()
    assert 2 <= before < n_shards(cache)

    calm = tmp_path / "calm"
    alone = [sys.executable, "-m", "cli", "extract", *words_for(model, tiny_data, calm)]
    subprocess.run(alone, cwd=ROOT, check=True, capture_output=True)
    assert contents(cache, everything=True) == contents(calm, everything=True)


@pytest.mark.slow
def test_a_call_that_is_wrong_is_not_requeued(tmp_path: Path) -> None:
    bin_, said = programs(tmp_path / "bin"), tmp_path / "said"
    assert task(0, 0, bin_, ["--backbone", "resize", "--task", "birds"], said).wait(120) == 2
    assert "'birds'" in said.read_text()
    assert not (bin_ / "asked").exists()
