"""`kill -9` at random moments of a real extraction: resumed, it ends bit for bit as if undisturbed."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featcache.store import find_stores

ROOT = Path(__file__).resolve().parents[1]
N_KILLS = 20

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
            pooled = torch.nn.functional.avg_pool2d(pixels.flatten(0, 1), 16).unflatten(0, pixels.shape[:2])
            return {layer: torch.einsum("bfcyx,cd->bfyxd", pooled, mix) for layer in layers}
        return encode


BACKBONE = Toy()
"""


def command(model: Path, data: Path, cache: Path) -> list[str]:
    words = [
        "-m",
        "cli",
        "extract",
        "--backbone",
        f"{model}:BACKBONE",
        "--task",
        "flyvsfly",
        "--split",
        "train",
    ]
    options = ["--batch", "2", "--shard-mb", "1", "--views", "2"]
    return [sys.executable, *words, *options, "--data-dir", str(data), "--cache-dir", str(cache)]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "runs.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def n_shards(cache: Path) -> int:
    return len(list(cache.rglob("c.*.0.0.0.0.0")))


def kill_somewhere(process: subprocess.Popen[bytes], cache: Path, rng: random.Random) -> bool:
    """Kill after a random time of start-up, or a random moment after a random number of further shards."""
    more = rng.randint(0, 4)
    wanted = n_shards(cache) + more
    while process.poll() is None and more and n_shards(cache) < wanted:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.06) if more else rng.uniform(0, 4))
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


@pytest.mark.slow
def test_killed_and_resumed_is_bit_for_bit_undisturbed(tiny_data: Path, tmp_path: Path) -> None:
    model = tmp_path / "toy_model.py"
    model.write_text(TOY_MODEL)
    calm, cache = tmp_path / "calm", tmp_path / "killed"
    subprocess.run(command(model, tiny_data, calm), cwd=ROOT, check=True, capture_output=True)
    undisturbed = contents(calm)

    rng, killed, seen = random.Random(0), 0, set()
    while killed < N_KILLS:
        process = subprocess.Popen(
            command(model, tiny_data, cache), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        killed += kill_somewhere(process, cache, rng)
        seen.add(n_shards(cache))
        if any(store.complete for store in find_stores(cache)):
            # It got through before the kill came: compare, and begin again.
            assert contents(cache) == undisturbed
            shutil.rmtree(cache)
    final = subprocess.run(command(model, tiny_data, cache), cwd=ROOT, capture_output=True, text=True)
    assert final.returncode == 0, final.stderr
    assert len(seen) > 4, f"the kills came at the same point: with {seen} shards on disk"
    assert contents(cache) == undisturbed
