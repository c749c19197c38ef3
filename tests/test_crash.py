"""`kill -9` at random moments of a real extraction: resumed, it ends bit for bit as if undisturbed."""

import random
import signal
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


@pytest.mark.slow
def test_killed_and_resumed_is_bit_for_bit_undisturbed(tiny_data: Path, tmp_path: Path) -> None:
    model = tmp_path / "toy_model.py"
    model.write_text(TOY_MODEL)
    started = time.monotonic()
    subprocess.run(command(model, tiny_data, tmp_path / "calm"), cwd=ROOT, check=True, capture_output=True)
    undisturbed = time.monotonic() - started

    rng, killed, cache = random.Random(0), 0, tmp_path / "killed"
    seen_shards = []
    for attempt in range(N_KILLS):
        process = subprocess.Popen(
            command(model, tiny_data, cache), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Moments spread over the whole run: start-up, the scan, shards, the end.
        time.sleep(undisturbed * rng.uniform(0.3, 0.9) * (1 if attempt % 2 else 0.85))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        seen_shards.append(len(list(cache.rglob("c/*/0/0/0/0/0"))))
        if killed and attempt % 5 == 4 and find_stores(cache) and find_stores(cache)[0].complete:
            # It got through between two kills: compare, and begin again.
            assert contents(cache) == contents(tmp_path / "calm")
            subprocess.run(["rm", "-rf", str(cache)], check=True)
    final = subprocess.run(command(model, tiny_data, cache), cwd=ROOT, capture_output=True, text=True)
    assert final.returncode == 0, final.stderr
    assert killed > N_KILLS // 2, f"only {killed} of {N_KILLS} runs were alive when the kill came"
    assert len(set(seen_shards)) > 1, f"all kills came at the same point: {seen_shards} shards"
    (store,) = find_stores(cache)
    assert store.complete
    assert contents(cache) == contents(tmp_path / "calm")
