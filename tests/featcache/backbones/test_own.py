"""An edited model file is another model, with its imports; a moved one is the same."""

from pathlib import Path

import pytest

from featcache.backbones import load_backbone
from featcache.backbones.own import OwnBackbone, source_digest

OWN = """
from helper import FACTOR
from featcache.backbones.base import BackboneInfo, preprocessing
from featcache.spec import Layer, TokenGrid

class Mine:
    info = BackboneInfo(
        name="mine", title="Mine", source="me", licence="mine", commercial=True, public=False, params_m=0.0,
        n_blocks=0, input_size=(8, 8), final_norm=False, default_layers=(Layer(0),),
        grid=TokenGrid(steps=16, rows=1, columns=1, channels=1),
    )
    def weights_digest(self): return "none"
    def architecture(self): return {"family": "mine", "source_sha256": "a lie"}
    def preprocessing(self): return preprocessing(self.info)
    def load(self, layers, device, dtype): return lambda pixels: {Layer(0): FACTOR * pixels.mean()}

BACKBONE = Mine()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, what it imports, what that imports, and what is only beside them."""
    for name, text in {
        "my_model.py": OWN,
        "helper.py": "def later():\n    from parts.deep import X\nFACTOR = 2\n",
        "parts/__init__.py": "",
        "parts/deep.py": "from . import wide\nX = 1\n",
        "parts/wide.py": "import broken\n",
        "broken.py": "def (",
        "beside.py": "Y = 1\n",
        "featcache/backbones/base.py": "not ours to digest",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_an_edited_model_file_is_another_architecture(folder: Path) -> None:
    def source() -> object:
        backbone = load_backbone(f"{folder / 'my_model.py'}:BACKBONE")
        assert isinstance(backbone, OwnBackbone)
        return backbone.architecture()["source_sha256"]

    before = source()
    assert before == source() != "a lie"
    (folder / "my_model.py").write_text(OWN.replace("FACTOR *", "-FACTOR *"))
    assert source() != before


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("my_model.py", True),
        ("helper.py", True),
        ("parts/__init__.py", True),
        ("parts/deep.py", True),
        ("parts/wide.py", True),
        ("broken.py", True),
        ("beside.py", False),
        ("featcache/backbones/base.py", False),
    ],
)
def test_what_a_model_imports_from_its_folder_counts_and_nothing_else(
    folder: Path, name: str, counts: bool
) -> None:
    before = source_digest(folder / "my_model.py")
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n# edited\n")
    assert (source_digest(folder / "my_model.py") != before) == counts


def test_where_the_file_is_plays_no_part(folder: Path, tmp_path: Path) -> None:
    before = source_digest(folder / "my_model.py")
    moved = folder.rename(folder.with_name(f"{folder.name}_moved"))
    (moved / "my_model.py").rename(moved / "renamed.py")
    assert source_digest(moved / "renamed.py") == before
    moved.rename(folder)
