"""The README keeps its promises: commands and options exist, its YAML loads, its file tree is the tree."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from cli import app, extract
from featcache import synthetic
from featcache.data.readers.video.clip_list import read_clip_list
from featcache.manifest import load_manifest
from featcache.store.feature_store import find_stores

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, flags=re.DOTALL)
CALLS = [
    line.partition("#")[0].strip()
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.splitlines()
    if line.startswith("scivid ")
]


@pytest.mark.parametrize("call", CALLS)
def test_every_call_exists_with_its_options(call: str) -> None:
    words = shlex.split(call)[1:]
    command = typer.main.get_command(app).commands[words[0]]
    if hasattr(command, "commands"):
        command = command.commands[words[1]]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_the_table_of_commands_is_complete() -> None:
    shown = set(re.findall(r"^\| `scivid (\S+?)[` ]", TEXT, flags=re.MULTILINE))
    assert shown == set(typer.main.get_command(app).commands)


def test_the_manifest_of_ones_own_videos_loads(tmp_path: Path) -> None:
    (block,) = [block for kind, block in BLOCKS if kind == "yaml"]
    (tmp_path / "cages.yaml").write_text(block)
    assert load_manifest(tmp_path / "cages.yaml").task("cages").splits["val"] == ("cages", "val")


def test_the_file_tree_names_every_module() -> None:
    tree = TEXT.split("## The files")[1]
    named = set(re.findall(r"[\w./]+", tree))
    modules = [path for package in ("featcache", "readouts") for path in (ROOT / package).iterdir()]
    missing = [
        path.name
        for path in modules
        if not path.name.startswith("__")
        and path.suffix in (".py", "")
        and not {path.name, f"{path.name}/"} & named
    ]
    assert not missing


@pytest.mark.slow
def test_the_python_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the smallest generated data, with the backbone that needs no time."""
    (block,) = [block for kind, block in BLOCKS if kind == "python" and "find_stores" in block]
    synthetic.generate("calms21", tmp_path / "demo/data", profile="tiny", seed=0)
    extract(
        backbone="resize", task="calms21", split="train,val", data_dir=tmp_path / "demo/data",
        cache_dir=tmp_path / "demo/features",
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    lines: dict[str, object] = {}
    exec(compile(block.replace("videomae_random", "resize"), "README.md", "exec"), lines)
    assert lines["tokens"].shape[0] == 3
    assert lines["lazy"]["tokens_0"].dims == ("clip", "view", "step", "row", "column", "channel")
    assert re.search(r"^attention mean_AP 0\.\d+$", capsys.readouterr().out, flags=re.MULTILINE)


def test_the_model_of_ones_own_is_extracted_from(tiny_data: Path, tmp_path: Path) -> None:
    (block,) = [block for kind, block in BLOCKS if kind == "python" and "BACKBONE = " in block]
    (tmp_path / "my_model.py").write_text(block)
    extract(
        backbone=f"{tmp_path / 'my_model.py'}:BACKBONE", task="calms21", split="val", data_dir=tiny_data,
        cache_dir=tmp_path / "features",
    )  # fmt: skip
    (store,) = find_stores(tmp_path / "features")
    # Mean colours from 0 to 1, of the frames as they are.
    assert store.read([0]).shape == (1, 16, 7, 7, 3)
    assert 0 <= store.read([0]).min() < store.read([0]).max() <= 1


def test_rows_of_a_clip_list_are_read(tmp_path: Path) -> None:
    (header,) = re.findall(r"`(video,\S+)` in its first line", TEXT)
    (row,) = re.findall(r"first line: `(\S+)`", TEXT)
    (tmp_path / "train.csv").write_text(f"{header}\n{row}\n")
    (clip,) = read_clip_list(tmp_path / "train.csv", ["cages/a.mp4"], ["resting", "digging"]).clips
    assert (clip.source, clip.first_frame, clip.labels) == ("cages/a.mp4", 250, (1,))
