"""What is the user's own: a model in a Python file, whose source is part of what it computes, or weights.

An edited `encode()` makes other tokens, and nothing that its author wrote into `architecture()` need say so:
the digest of the file, and of the files it imports from its own folder, goes into the fingerprint.
"""

import ast
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.backbones.base import JSON, Backbone, BackboneInfo, Encoder
from featcache.backbones.release import INDEX_FILE, WEIGHT_FILES
from featcache.spec import Layer

if TYPE_CHECKING:
    import torch


_ENDINGS = re.compile(r"\.(pth|pt|tar|bin|ckpt|npz|safetensors)\b")
"""Of files of weights."""

_OURS = (("featcache",), ("readouts",))
"""Packages that are beside the user's file in a checkout, and have a version of their own in fingerprints."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnBackbone:
    """The user's object, and the digest of its source beside its architecture."""

    own: Backbone
    source: str

    @property
    def info(self) -> BackboneInfo:
        """What the object says of itself."""
        return self.own.info

    def weights_digest(self) -> str:
        """As the object says."""
        return self.own.weights_digest()

    def architecture(self) -> JSON:
        """What the object says, and the digest of its source."""
        return {**self.own.architecture(), "source_sha256": self.source}

    def preprocessing(self) -> JSON:
        """As the object says."""
        return self.own.preprocessing()

    def load(self, layers: tuple[Layer, ...], device: "torch.device", dtype: "torch.dtype") -> Encoder:
        """The object's encoder."""
        return self.own.load(layers, device, dtype)


def of_own_weights(info: BackboneInfo, file: Path, source: str) -> BackboneInfo:
    """What is known of a model whose weights are the user's: whose they are, and a name of their own.

    Args:
        info: of the architecture.
        file: with the weights.
        source: as the user named it: a file, a folder, or a repository of the hub.
    """
    named = (
        file.parent if file.name in (*WEIGHT_FILES, INDEX_FILE) and Path(source).exists() else Path(source)
    )
    label = tidy_name(_ENDINGS.sub("", named.name))
    # Not the whole path: it plays no part, and tells of a user's machine what nobody asked.
    told = source if not Path(source).exists() else f"{file.resolve().parent.name}/{file.name}"
    return replace(
        info,
        name=f"{info.name}.{label}",
        title=f"{info.title}, with the weights of {told}",
        source=told,
        licence="that of its files",
        commercial=False,
        public=False,
        weights_from=told,
    )


def tidy_name(text: str) -> str:
    """A name that stores can have, as near to `text` as can be."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-") or "own"


def source_digest(path: Path) -> str:
    """Sha256 in hex of a Python file and of those that it imports from its folder, and they in turn.

    Imports are read, not run: what is imported by a computed name is not seen. Where the folder is plays no
    part, nor does the file's own name.
    """
    lines = [hashlib.sha256(path.read_bytes()).hexdigest()]
    for file in sorted(_imported(path) - {path}):
        name = file.relative_to(path.parent).as_posix()
        lines.append(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}")
    return lines[0] if len(lines) == 1 else hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _imported(path: Path) -> set[Path]:
    """The file and all that it imports from its folder."""
    found, left = {path}, [path]
    while left:
        file = left.pop()
        new = {one for name in _names(file, path.parent) for one in _files_of(name, path.parent)} - found
        found |= new
        left += new
    return found


def _names(file: Path, root: Path) -> set[tuple[str, ...]]:
    """The modules that a file may import, as parts of their dotted names below `root`."""
    names: set[tuple[str, ...]] = set()
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # then nothing that ran has imported it
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(root).parts[: -node.level] if node.level else ()
            module = (*package, *(node.module.split(".") if node.module else ()))
            names |= {module, *((*module, alias.name) for alias in node.names)}
    return {name for name in names if name[:1] not in _OURS}


def _files_of(name: tuple[str, ...], root: Path) -> set[Path]:
    """The files that run when module `name` is imported from `root`: of its packages, and its own."""
    found = set()
    for depth in range(1, len(name) + 1):
        place = root.joinpath(*name[:depth])
        found |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return found
