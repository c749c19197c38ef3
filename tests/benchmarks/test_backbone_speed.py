"""The script that measures the backbones: its parts on sizes known by hand, and one small run."""

import json
import time
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch

from featcache.backbones import BACKBONES
from featcache.backbones.model import vit_info
from tests.benchmarks import backbone_speed as script

CPU = torch.device("cpu")


def measurement(gflop: float | None = 200.0) -> script.Measurement:
    def depth(block: int, seconds: float) -> script.Depth:
        return script.Depth(block=block, n_blocks=12, seconds=[seconds, 9.0, seconds])

    return script.Measurement(
        backbone="dinov2_b", precision="float32", device="cpu", threads=2, batch=4, gflop=gflop,
        load_seconds=0.5, peak_mb=1234.4, matmul_tflops=0.2, full=depth(12, 8.0),
        early=[depth(0, 0.4), depth(10, 7.0)] if gflop else [],
    )  # fmt: skip


def test_the_table_counts_a_clip_of_a_batch() -> None:
    # 8 s a pass of 4 clips: 2000 ms and half a clip a second; 200 GFLOP in 2 s are half of 0.2 TFLOP/s.
    assert script.table([measurement()]).splitlines()[-1] == (
        "| dinov2_b | float32 | 200 | 2000 | 0.5 | 0.1 | 50% | 1234 | 0.50 "
        "| block 0 of 12: 100 ms, 5% | block 10 of 12: 1750 ms, 88% |"
    )


@pytest.mark.parametrize("gflop", [None, 0.0])
def test_a_backbone_without_blocks_has_no_share_and_no_early_exit(gflop: float | None) -> None:
    header, rule, row = script.table([measurement(gflop)]).splitlines()
    assert row.endswith("| 2000 | 0.5 | - | - | 1234 | 0.50 | - | - |")
    assert header.count("|") == rule.count("|") == row.count("|")


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "resize" and "random" not in name])
def test_a_file_holds_the_whole_model(name: str) -> None:
    # Left out: the norm that VideoMAEv2's hub files have for the mean; added: its biases of keys, in no file.
    numbers = sum(prod(shape) for shape in script.released_shapes(name).values())
    assert numbers / 1e6 == pytest.approx(BACKBONES[name].info.params_m, rel=1e-3)


def test_what_needs_no_weights_gets_no_file(tmp_path: Path) -> None:
    assert script.write_weights("resize", tmp_path) is None
    assert script.write_weights("videomae_random", tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["4ds_b_dist_e", "vjepa_l", "videomae_b", "videomaev2_b", "dinov2_b", "videoprism_b"]
)
def test_a_written_file_is_loaded_and_measured(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some processors multiply bfloat16 a thousand times slower than others.
    monkeypatch.setitem(script.MATRIX_SIDE, "cpu", 64)
    model = BACKBONES[name]
    side = 2 * model.size.patch[1]
    block = replace(model.size.block, width=24, heads=2, mlp=48)
    tiny = replace(model.size, block=block, depth=20, input_size=(side, side))
    info = vit_info(name, model.family, tiny)
    monkeypatch.setitem(BACKBONES, name, replace(model, size=tiny, info=info))
    path = script.write_weights(name, tmp_path)
    assert path is not None
    assert path.stat().st_size >= 0.9 * 4 * tiny.n_params
    one = script.measured(name, tmp_path, device="cpu", precision="bfloat16", batch=2, repeats=3, threads=1)
    assert one.gflop == tiny.gflop
    # int(21 * 0.1) - 1 = 1 and int(21 * 0.95) - 1 = 18 of a list that has the tokens twice at its front.
    assert [depth.block for depth in one.early] == [0, 17]
    assert all(len(depth.seconds) == 3 for depth in (one.full, *one.early))
    assert one.load_seconds > 0


def test_the_peak_is_that_of_the_work() -> None:
    def work() -> int:
        held = torch.ones(25_000_000)
        time.sleep(0.2)
        return len(held)

    _, nothing = script.with_peak(lambda: time.sleep(0.1), CPU)
    result, peak = script.with_peak(work, CPU)
    assert result == 25_000_000
    assert peak - nothing == pytest.approx(100, abs=10)


@pytest.mark.slow
def test_a_run_prints_the_table_and_writes_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--backbones", "resize", "--device", "cpu", "--repeats", "2", "--threads", "1"]
    script.main([*words, "--dir", str(tmp_path)])
    (one,) = json.loads((tmp_path / "backbone_speed.json").read_text())
    assert (one["backbone"], one["precision"], len(one["full"]["seconds"])) == ("resize", "float32", 2)
    assert "| resize | float32 | - |" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["backbone_speed.json"]
