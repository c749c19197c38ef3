"""Reference fixtures by name pattern: files that are dropped into the folder later are run too.

A test marked `@pytest.mark.golden("readout_linear*")` runs once for every file of that pattern, which it gets
as the argument `golden`.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One fixture of the reference: its arrays, and the json beside them."""

    name: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays below `prefix`, by what follows it."""
        return {key.removeprefix(prefix): a for key, a in self.arrays.items() if key.startswith(prefix)}

    @property
    def optax(self) -> dict[str, float]:
        """The numbers of the resolved optax chain, read from its printed form; absent parts are left out."""
        text = self.meta["module_kwargs"]["optimizer"]
        return {name: float(number) for name, number in re.findall(r"(\w+)[=(]([-+.e\d]+)[,)\n]", text)}


def _folder() -> Path:
    beside = Path(__file__).resolve().parents[3] / "shared"
    return Path(os.environ.get("SCIVID_SHARED", beside)) / "golden" / "reference"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "golden(*patterns): run once for every reference fixture so named")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("golden")
    if mark is not None:
        files = sorted({file for pattern in mark.args for file in _folder().glob(f"{pattern}.npz")})
        metafunc.parametrize("golden", files, ids=[file.stem for file in files], indirect=True)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    file: Path = request.param
    with np.load(file, allow_pickle=False) as arrays:
        return Golden(
            name=file.stem,
            meta=json.loads(file.with_suffix(".json").read_text()),
            arrays={key: arrays[key] for key in arrays.files},
        )
