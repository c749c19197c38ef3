"""The README and its pages keep their promises: commands exist and run, the file tree is the tree."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli import app, extract
from featcache import synthetic
from featcache.data.readers.video.clip_list import read_clip_list
from featcache.manifest import load_manifest
from featcache.store.feature_store import find_stores

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES["README.md"]
FENCED = re.compile(r"```(\w*)\n(.*?)```", flags=re.DOTALL)


def blocks(page: str, kind: str) -> list[str]:
    return [block for of, block in FENCED.findall(PAGES[page]) if of == kind]


def calls(page: str) -> list[str]:
    """The lines of a page that call the program, without what is said of them."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.startswith("scivid ")]


CALLS = [call for page in PAGES for call in calls(page)]


@pytest.mark.parametrize("call", CALLS)
def test_every_call_exists_with_its_options(call: str) -> None:
    words = shlex.split(call)[1:]
    command = typer.main.get_command(app).commands[words[0]]
    if hasattr(command, "commands"):
        command = command.commands[words[1]]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_the_table_of_commands_is_complete() -> None:
    shown = set(re.findall(r"^\| `scivid (\S+?)[` ]", README, flags=re.MULTILINE))
    assert shown == set(typer.main.get_command(app).commands)


def test_the_manifest_of_ones_own_videos_loads(tmp_path: Path) -> None:
    (block,) = blocks("own-manifest.md", "yaml")
    (tmp_path / "cages.yaml").write_text(block)
    assert load_manifest(tmp_path / "cages.yaml").task("cages").splits["val"] == ("cages", "val")


def test_the_file_tree_names_every_module() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text().split("## The files")[1]
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
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the smallest generated data, with the backbone that needs no time."""
    (block,) = blocks("README.md", "python")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/data").symlink_to(tiny_data)
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
    (block,) = [block for block in blocks("own-model.md", "python") if "BACKBONE = " in block]
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
    (header,) = re.findall(r"`(video,\S+)` in its first line", PAGES["own-manifest.md"])
    (row,) = re.findall(r"first line: `(\S+)`", PAGES["own-manifest.md"])
    (tmp_path / "train.csv").write_text(f"{header}\n{row}\n")
    (clip,) = read_clip_list(tmp_path / "train.csv", ["cages/a.mp4"], ["resting", "digging"]).clips
    assert (clip.source, clip.first_frame, clip.labels) == ("cages/a.mp4", 250, (1,))


def test_every_page_is_named_in_the_readme_and_is_there() -> None:
    assert set(re.findall(r"`docs/([\w-]+\.md)`", README)) == PAGES.keys() - {"README.md"}


NOT_RUN = (
    "data download",
    "4ds_e",
    "s3://",
    "--shards",
    "--scheduler",
    "--local-workers",
    "--workers",
    "https:",
)
"""What needs a network, a cluster or a bucket, each of which has tests of its own; or a model of 25 GB."""
QUICK = "--set steps=4 --set batch=4 --set width=16 --set heads=2"


def as_it_stands(line: str) -> list[str]:
    """The words of a call, with models that need no weights, and few steps."""
    line = re.sub(r"videomae_(b|random)\b", "resize", line).replace("--study data", "--study readout")
    line = line.replace("lr=1e-4,3e-4 seed=0,1,2", "steps=4 width=16 heads=2 lr=1e-4,3e-4 seed=0,1")
    if "train-readout" in line or "certify" in line:
        line += f" {QUICK}"
    if "certify" in line:
        line = line.replace("--steps 20", "") + " --steps 2 --val-clips 4"
    if "--study" in line:
        line += ' --grid "steps=4 width=16 heads=2 seed=0"'
    return shlex.split(line)[1:]


@pytest.mark.slow
def test_the_lines_of_the_readme_and_of_the_pages_on_a_gpu_and_on_reports_run(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, in the order of the pages, on the smallest generated data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIVID_DATA_DIR", "data")
    shutil.copytree(tiny_data, "data")
    synthetic.generate("digital_typhoon", Path("data"), profile="tiny", seed=0)
    lines = [*calls("README.md"), *calls("gpu.md"), *calls("report.md")]
    can_run = [line for line in lines if not any(word in line for word in NOT_RUN)]
    for words in dict.fromkeys(tuple(as_it_stands(line)) for line in can_run):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{words}\n{done.output}\n{done.exception!r}"
    (block,) = blocks("report.md", "python")
    exec(compile(block, "report.md", "exec"), {})
    assert Path("report.html").is_file() and Path("results.csv").is_file()
