"""The label files of `own_data` with their videos."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def own_data(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder, with the videos that `videos.json` lists."""
    if not (shared / "own_data").is_dir():
        pytest.skip(f"no own_data at {shared}")
    folder = tmp_path_factory.mktemp("own") / "own_data"
    shutil.copytree(shared / "own_data", folder, copy_function=shutil.copyfile)
    subprocess.run([sys.executable, str(folder / "make_videos.py"), str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def truth(own_data: Path) -> Callable[[str], Any]:
    return lambda name: json.loads((own_data / "truth" / f"{name}.json").read_text())
