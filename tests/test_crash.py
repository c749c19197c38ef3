"""`kill -9` at random moments of a real extraction: resumed, it ends bit for bit as if undisturbed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from cli import app
from featcache.store.feature_store import find_stores

ROOT = Path(__file__).resolve().parents[1]
N_KILLS = 10
IMPORTED = [
    "cli",
    "featcache.extract.run",
    "featcache.data.readers.sequence_example.reader",
    "array_record.python.array_record_module",
]
"""By the process that the killed ones are forks of: imports, most of a short extraction, write nothing."""

# A user's own model, slow enough to be killed between two shards as well as inside one.
TOY_MODEL = """
import time
import torch
from featcache.backbones.base import BackboneInfo, preprocessing
from featcache.spec import Layer, TokenGrid


class Toy:
    info = BackboneInfo(
        name="toy", title="toy", source="here", licence="none", commercial=True, public=True, params_m=0.0,
        n_blocks=0, input_size=(56, 56), grid=TokenGrid(steps=16, rows=14, columns=14, channels=96),
        default_layers=(Layer(0),), final_norm=False,
    )
    def weights_digest(self): return "toy"
    def architecture(self): return {}
    def preprocessing(self): return preprocessing(self.info)
    def load(self, layers, device, dtype):
        mix = torch.linspace(-1, 1, 3 * 96).reshape(3, 96)
        def encode(pixels):
            time.sleep(0.03)
            few = pixels[..., 8::16, 8::16]
            return {layer: torch.einsum("bfcyx,cd->bfyxd", few, mix) for layer in layers}
        return encode


BACKBONE = Toy()
"""


def words(model: Path, data: Path, cache: Path, split: str = "train") -> list[str]:
    what = ["extract", "--backbone", f"{model}:BACKBONE", "--task", "flyvsfly", "--split", split]
    options = ["--batch", "2", "--shard-mb", "1", "--views", "2"]
    return [*what, *options, "--data-dir", str(data), "--cache-dir", str(cache)]


def begun(arguments: list[str], said: Path) -> ForkServerProcess:
    """The command line, begun in a process of its own."""
    forks = get_context("forkserver")
    forks.set_forkserver_preload(IMPORTED)
    process = forks.Process(target=telling, args=(arguments, said))
    process.start()
    return process


def telling(arguments: list[str], said: Path) -> None:
    """In that process: what is said to people is in a file."""
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        app(arguments)


def scivid(arguments: list[str], said: Path) -> None:
    """The command line to its end."""
    process = begun(arguments, said)
    process.join()
    assert process.exitcode == 0, said.read_text()


def stopped_once(arguments: list[str], said: Path, number: signal.Signals, ready: Callable[[], bool]) -> int:
    """The exit code of a command that is sent a signal as soon as it is `ready`."""
    process = begun(arguments, said)
    while process.is_alive() and not ready():
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture(scope="module")
def calm(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of train that nothing disturbed, beside the model's file; for reading only."""
    folder = tmp_path_factory.mktemp("calm")
    model = folder / "toy_model.py"
    model.write_text(TOY_MODEL)
    # As a user's shell runs it.
    command = [sys.executable, "-m", "cli", *words(model, tiny_data, folder / "cache")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "cache"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_with_a_word_and_the_same_command_goes_on(
    tiny_data: Path, calm: Path, tmp_path: Path, number: signal.Signals
) -> None:
    model, cache, said = calm.parent / "toy_model.py", tmp_path / "stopped", tmp_path / "said"
    extract = words(model, tiny_data, cache)
    code = stopped_once(extract, said, number, lambda: n_shards(cache) > 1)
    assert code == 128 + number
    assert "Run the same command again to go on from here." in said.read_text()
    assert "Traceback" not in said.read_text()
    assert 1 < n_shards(cache) < n_shards(calm)
    scivid(extract, said)
    assert contents(cache) == contents(calm)

    scivid(words(model, tiny_data, cache, "val"), said)
    results = tmp_path / "results"
    train = [
        "train-readout", "--backbone", f"{model}:BACKBONE", "--task", "flyvsfly", "--readout", "linear",
        "--set", "steps=400", "--set", "warmup=5", "--set", "minival_every=5", "--set", "batch=2",
        "--cache-dir", str(cache), "--results-dir", str(results), "--device", "cpu",
    ]  # fmt: skip
    code = stopped_once(train, said, number, lambda: bool(list(results.glob("*/*/history.jsonl"))))
    assert code == 128 + number
    assert "Run the same command again to go on from here." in said.read_text()
    assert "Traceback" not in said.read_text()
    assert not list((results / "results.parquet").glob("*.parquet"))
    scivid(train, said)
    assert len(list((results / "results.parquet").glob("*.parquet"))) == 1


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "runs.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def n_shards(cache: Path) -> int:
    # Not below folders that a writer may take away meanwhile.
    return len(list(cache.glob("*/*/*.zarr/*/c.*.0.0.0.0.0")))


def kill_somewhere(process: ForkServerProcess, cache: Path, rng: random.Random) -> bool:
    """Kill after a random time of start-up, or a random moment after a random number of further shards."""
    more = rng.randint(0, 4)
    wanted = n_shards(cache) + more
    while process.is_alive() and more and n_shards(cache) < wanted:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.06) if more else rng.uniform(0, 1))
    alive = process.is_alive()
    process.kill()
    process.join()
    assert process.exitcode in (-signal.SIGKILL, 0)
    return alive


@pytest.mark.slow
def test_killed_and_resumed_is_bit_for_bit_undisturbed(tiny_data: Path, calm: Path, tmp_path: Path) -> None:
    model, cache, said = calm.parent / "toy_model.py", tmp_path / "killed", tmp_path / "said"
    undisturbed = contents(calm)

    rng, killed, seen = random.Random(0), 0, set()
    while killed < N_KILLS:
        process = begun(words(model, tiny_data, cache), said)
        killed += kill_somewhere(process, cache, rng)
        seen.add(n_shards(cache))
        if any(store.complete for store in find_stores(cache)):
            # It got through before the kill came: compare, and begin again.
            assert contents(cache) == undisturbed
            shutil.rmtree(cache)
    scivid(words(model, tiny_data, cache), said)
    assert len(seen) > 4, f"the kills came at the same point: with {seen} shards on disk"
    assert contents(cache) == undisturbed
