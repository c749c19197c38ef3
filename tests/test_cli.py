"""The command line as a user meets it: exit codes, one message an error, and the way through on tiny data."""

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import app
from featcache.store.feature_store import find_stores
from readouts.results.table import load_results

runner = CliRunner()


def scivid(*words: object) -> tuple[int, str]:
    result = runner.invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_version_is_said() -> None:
    assert scivid("--version") == (0, f"scivid {version('scivid')}\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("list stores --cache-dir=~/features --manifest=~/absent.yaml", "no stores yet"),
        ("validate ~/absent.zarr", "HOME/absent.zarr"),
        ("report --results-dir ~/absent --out ~/report.html", "HOME/absent"),
        ("list tasks --manifest ~/absent.yaml", "HOME/absent.yaml"),
        ("sweep --file ~/absent.yaml", "HOME/absent.yaml"),
        ("extract --backbone ~/absent.py:B --task flyvsfly", "HOME/absent.py"),
        ("train-readout --backbone resize --task ~/absent.py:T", "HOME/absent.py"),
        ("data status --data-dir ~/absent", "HOME/absent"),
        ("data download --weights 4ds_l --weights-dir ~/absent", "HOME/absent/4ds_l"),
        ("list stores --cache-dir ~no-such-user/features", "there is no home folder ~no-such-user"),
    ],
)
def test_a_tilde_is_the_home_folder_in_every_path(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _, output = scivid(*words.split())
    assert said.replace("HOME", str(tmp_path)) in output
    assert not list(tmp_path.glob("~*"))


def test_a_tilde_of_a_setting_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weights/videomae_l").mkdir(parents=True)
    monkeypatch.setenv("SCIVID_WEIGHTS_DIR", "~/weights")
    _, output = scivid("list", "backbones")
    assert "incomplete" in output


def test_a_stop_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("featcache.listings.store_rows", stopped)
    code, shown = scivid("list", "stores")
    assert (code, shown) == (130, "scivid: stopped. Run the same command again to go on from here.\n")


OWN_MODEL = """
from featcache.backbones.base import BackboneInfo, preprocessing
from featcache.spec import Layer, TokenGrid

class Mine:
    info = BackboneInfo(
        name="mine", title="Mine", source="me", licence="none", commercial=True, public=False, params_m=0.0,
        n_blocks=1, input_size=(16, 16), grid=TokenGrid(steps=16, rows=2, columns=2, channels=4),
        final_norm=False, default_layers=(Layer(1),),
    )
    weights_digest = lambda self: "none"
    architecture = lambda self: {}
    preprocessing = lambda self: preprocessing(self.info)

    def load(self, layers, device, dtype):
        return lambda pixels: pixels.nothing

BACKBONE = Mine()
"""


def test_a_mistake_in_ones_own_model_is_one_message(tiny_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN_MODEL)
    call = ("extract", "--backbone", f"{file}:BACKBONE", "--task", "flyvsfly", "--split", "val")
    where = ("--data-dir", tiny_data, "--cache-dir", tmp_path)
    code, shown = scivid(*call, *where)
    line = OWN_MODEL[: OWN_MODEL.index("pixels.nothing")].count("\n") + 1
    assert code == 1
    assert f"scivid: {file}, line {line}: AttributeError: 'Tensor' object has no attribute 'nothing'" in shown
    with pytest.raises(AttributeError):
        scivid("--debug", *call, *where)


def test_a_sweep_without_stores_says_so_once_and_how_to_make_them(tmp_path: Path) -> None:
    grid = "task=flyvsfly backbone=videomae_random_shuffled readout=linear seed=0,1"
    where = ("--cache-dir", tmp_path / "f", "--results-dir", tmp_path / "r")
    for more, code in (("--dry-run",), 1), ((), 1):
        found, shown = scivid("sweep", "--grid", grid, *more, *where)
        assert found == code
        assert shown.count("no train store of videomae_random_shuffled") == 1
        assert shown.count("scivid extract --backbone videomae_random --task flyvsfly --shuffle-frames") == 1
        assert "nothing can be trained yet" in shown and "nobody knows" not in shown


def test_settings_are_listed_of_a_task() -> None:
    code, shown = scivid("list", "settings", "--task", "flyvsfly")
    assert code == 0
    assert re.search(r"^steps +recipe +40000", shown, flags=re.MULTILINE)


@pytest.mark.parametrize("what", ["backbones", "tasks", "readouts", "stores"])
def test_lists(what: str, tmp_path: Path) -> None:
    code, shown = scivid("list", what, "--cache-dir", tmp_path)
    assert code == 0
    expected = {
        "backbones": "videomae_b",
        "tasks": "calms21",
        "readouts": "attention",
        "stores": "no stores yet",
    }
    assert expected[what] in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("list models", "there are lists of backbones"),
        ("extract --backbone videomae_x --task flyvsfly", "videomae_x"),
        ("extract --backbone resize --task flies", "no task is called 'flies'"),
        (
            "extract --backbone resize --task flyvsfly --split dev",
            "no split of task flyvsfly is called 'dev'",
        ),
        ("extract --backbone resize --task flyvsfly --layers 7", "resize has blocks 0"),
        ("extract --backbone resize --task flyvsfly --device tpu9", "--device tpu9"),
        ("extract --backbone resize --task flyvsfly --precision half", "float32, bfloat16 or auto"),
        ("train-readout --backbone x --task stir --resident perhaps", "perhaps: one of auto, yes, no"),
        ("list tasks --manifest /nowhere.yaml", "/nowhere.yaml cannot be read"),
        ("list settings", "say of which --task"),
        ("plan --backbone resize --task flyvsfly --clips trian=97", "--clips trian=97: write role=number"),
        ("train-readout --backbone resize --task flyvsfly --readout knn", "a sweep fits it: scivid sweep"),
        (
            "certify --backbone resize --task flyvsfly --readout knn",
            "knn needs no training, and a sweep fits",
        ),
    ],
)
def test_a_wrong_call_is_one_message_and_exit_code_2(words: str, message: str) -> None:
    code, shown = scivid(*words.split())
    assert (code, shown.count("scivid: ")) == (2, 1)
    assert message in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("extract --backbone resize --task flyvsfly --data-dir {tmp}", "fly_vs_fly"),
        ("train-readout --backbone resize --task flyvsfly --cache-dir {tmp}", "no train store of resize"),
        ("validate {tmp}/nothing.zarr", "is not there"),
    ],
)
def test_work_that_fails_is_one_message_and_exit_code_1(words: str, message: str, tmp_path: Path) -> None:
    code, shown = scivid(*words.format(tmp=tmp_path).split())
    assert (code, shown.count("scivid: ")) == (1, 1)
    assert message in shown


def test_the_way_through(tiny_data: Path, tmp_path: Path) -> None:
    cache, results = tmp_path / "features", tmp_path / "results"
    where = ("--data-dir", tiny_data, "--cache-dir", cache)
    for _ in range(2):  # the second time finds everything there
        code, shown = scivid("extract", "--backbone", "resize", "--task", "flyvsfly", *where)
        assert code == 0, shown
    stores = find_stores(cache)
    assert [store.attrs["role"] for store in stores] == ["test", "train", "val"]

    code, shown = scivid("validate", *(store.path for store in stores))
    assert (code, shown.count("complete, checksums right, all finite")) == (0, 3)

    settings = ("--set", "steps=12", "--set", "minival_every=6", "--set", "width=16")
    stage_two = ("--cache-dir", cache, "--results-dir", results)
    code, shown = scivid(
        "train-readout", "--backbone", "resize", "--task", "flyvsfly", "--test", *settings, *stage_two
    )
    assert code == 0, shown
    rows = load_results(results)
    assert [row["readout"] for row in rows] == ["attention", "linear"]
    assert json.loads(rows[0]["recipe"])["weight_decay"] == 0.0  # the fly task's own
    assert set(json.loads(rows[0]["scores"])) == {"val", "test"}

    code, shown = scivid("report", "--out", tmp_path / "report.html", *stage_two)
    assert code == 0, shown
    page = (tmp_path / "report.html").read_text()
    assert "label frequency" in page
    assert "4DS-e" in page  # published rows
    assert "http://" not in page.replace("http://www.w3.org", "")  # no network


def test_one_flipped_byte_is_found_and_named(tiny_data: Path, tmp_path: Path) -> None:
    words = ("--backbone", "resize", "--task", "flyvsfly", "--split", "val", "--data-dir", tiny_data)
    assert scivid("extract", *words, "--cache-dir", tmp_path)[0] == 0
    (store,) = find_stores(tmp_path)
    shard = store.shard_path(store.spec.layers[0], 0)
    data = bytearray(shard.read_bytes())
    data[store.spec.all_arrays[0].stride + 100] ^= 0x10  # inside the second clip
    shard.write_bytes(data)
    code, shown = scivid("validate", store.path)
    assert code == 1
    assert "clip 1" in shown
    assert str(shard.relative_to(store.path)) in shown


def test_a_missing_shard_of_records_is_named(tiny_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    victim = min((data / "full" / "fly_vs_fly").glob("val_*"))
    victim.unlink()
    code, shown = scivid(
        "extract",
        "--backbone",
        "resize",
        "--task",
        "flyvsfly",
        "--split",
        "val",
        "--data-dir",
        data,
        "--cache-dir",
        tmp_path,
    )
    assert code == 1
    assert victim.name in shown
