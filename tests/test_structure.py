"""Promises about the code itself: what imports cost, that every file says what it is."""

import ast
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([ROOT / "cli.py", *ROOT.glob("featcache/**/*.py"), *ROOT.glob("readouts/**/*.py")])
MAX_LINES, MAX_BODY = 400, 60
FOLDERS = sorted({path.parent for path in SOURCES} - {ROOT})
FEWEST_MODULES, MOST_MODULES = 3, 15
SMALL_FOLDERS: dict[str, str] = {}
"""Folders of fewer modules, each with its reason."""
RECORDS = ("Certificate", "ReadoutComparison")
"""Written to JSON as a whole, for whoever reads the file."""

THE_COMMAND_LINE = "cli.py"
"""One file by contract, and options take a line each: it may be longer, its functions may not."""


def imported_by(module: str) -> set[str]:
    code = f"import {module}, sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split())


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        (
            "cli",
            {
                "torch",
                "transformers",
                "av",
                "zarr",
                "xarray",
                "dask",
                "distributed",
                "matplotlib",
                "sklearn",
                "pyarrow",
            },
        ),
        ("featcache.spec", {"torch", "numpy"}),
        ("featcache.store.feature_store", {"torch", "transformers", "av", "xarray", "dask"}),
        (
            "readouts.training.loop",
            {"transformers", "av", "dask", "xarray", "matplotlib", "array_record", "simplejpeg"},
        ),
        ("featcache.backbones", {"transformers"}),
    ],
)
def test_importing_is_light(module: str, forbidden: set[str]) -> None:
    assert not forbidden & imported_by(module)


def test_every_file_says_what_it_is() -> None:
    silent = [str(p) for p in SOURCES if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not silent


def test_files_and_functions_stay_short() -> None:
    long_files = [
        f"{p.name}: {n} lines"
        for p in SOURCES
        if (n := len(p.read_text().splitlines())) > MAX_LINES and p.name != THE_COMMAND_LINE
    ]
    long_bodies = [
        f"{p.name}:{node.name}"
        for p in SOURCES
        for node in ast.walk(ast.parse(p.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.body[0].lineno >= MAX_BODY
    ]
    assert not long_files + long_bodies


def test_every_file_has_its_test() -> None:
    untested = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.name not in ("__init__.py", "base.py")
        and not (ROOT / "tests" / path.relative_to(ROOT)).with_name(f"test_{path.stem}.py").exists()
    ]
    assert not untested


def test_every_field_of_a_dataclass_is_read() -> None:
    nodes = [node for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))]
    read = {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    classes = [n for n in nodes if isinstance(n, ast.ClassDef) and n.name not in RECORDS]
    configs = [c for c in classes if any("dataclass" in ast.unparse(d) for d in c.decorator_list)]
    fields = [f for c in configs for f in c.body if isinstance(f, ast.AnnAssign)]
    templates = " ".join(p.read_text() for p in ROOT.glob("readouts/**/*.html"))
    dead = {ast.unparse(f.target) for f in fields} - read
    assert not {name for name in dead if f".{name}" not in templates}


def modules(folder: Path) -> list[Path]:
    """Modules and folders of a folder, as one sees them when it is opened."""
    return [
        path
        for path in sorted(folder.iterdir())
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    ]


def test_a_folder_holds_what_one_look_takes_in() -> None:
    counts = {str(folder.relative_to(ROOT)): len(modules(folder)) for folder in FOLDERS}
    assert not {folder: n for folder, n in counts.items() if n > MOST_MODULES}
    small = {folder for folder, n in counts.items() if n < FEWEST_MODULES}
    assert small == SMALL_FOLDERS.keys()


def test_every_folder_says_what_it_is() -> None:
    silent = [
        folder for folder in FOLDERS if not ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    ]
    assert not silent


def test_nothing_is_called_utils() -> None:
    names = Counter(path.stem for path in SOURCES)
    assert not {"utils", "helpers", "common", "misc"} & names.keys()


@pytest.mark.parametrize("package", ["featcache", "readouts"])
def test_completion_offers_what_there_is_and_all_of_it_can_be_had(package: str) -> None:
    module = import_module(package)
    assert dir(module) == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_a_script_that_keeps_a_store_ends_without_a_word(tmp_path: Path) -> None:
    """Modules may be gone before objects are: torch, imported first, keeps some of them longer."""
    code = f"""
import torch, os
from featcache.store.reading.shard_file import ShardFile
from featcache.system.locks import Lock
held = Lock(__import__("pathlib").Path({str(tmp_path / "lock")!r}), wait=False, busy="")
shard = ShardFile.__new__(ShardFile)
shard.fd = os.open({__file__!r}, os.O_RDONLY)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
