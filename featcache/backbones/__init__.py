"""Frozen models by name: `BACKBONES`, `load_backbone`, `backbone_info`, `backbone_table`.

The registry names modules, so naming and listing models imports neither torch nor transformers. What is the
user's own is named by where it is: an object in a file (`my_model.py:BACKBONE`), other weights of a
registered architecture (`vjepa2_l@WEIGHTS`), a model whose folder says what it is.
"""

import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Literal, cast

from featcache.backbones.base import Backbone, BackboneInfo
from featcache.backbones.catalogue import BACKBONES
from featcache.backbones.model import BFLOAT16_OFF, CLIPS_A_SECOND, Model
from featcache.backbones.own import OwnBackbone, source_digest
from featcache.backbones.weights.locate import find_weights, own_weights
from featcache.buckets.path import absolute
from featcache.errors import CallError, WeightsError, did_you_mean
from featcache.system.console import OWN_MODULE

__all__ = [
    "BACKBONES",
    "BackboneRow",
    "anywhere",
    "backbone_info",
    "backbone_table",
    "load_backbone",
    "store_name",
]

SAVED = "hf:"
"""What goes before a folder or a repository whose files say what they are."""

_METHODS = ("weights_digest", "architecture", "preprocessing", "load")


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneRow:
    """One row of `scivid list backbones`."""

    info: BackboneInfo
    bfloat16_off: float | None
    """How far its family's tokens in bfloat16 are from those in float32, as a share of their spread."""
    clips_a_second: float | None
    """In bfloat16 on two cores of a CPU, where that was measured."""
    weights: Literal["here", "missing", "incomplete", "none needed"]


def load_backbone(name: str, weights_dir: Path | None = None) -> Backbone:
    """The backbone called `name`; its weights are looked for when they are needed.

    `name` is one of `BACKBONES`; one of them, `@` and where weights of the user's own for it are (a file, a
    folder, a repository in the hub's cache); `my_model.py:BACKBONE` (an object in a file of the user's own);
    or `hf:` and a folder that transformers or timm saved, or such a repository in the hub's cache; of a
    folder `hf:` may be left out.

    Raises:
        CallError: no such backbone, or the user's object is not one; says what it lacks.
            Or a saved model whose grid, sizes or normalisation cannot be known.
        WeightsError: the user's weights are not there, or of another model by the config beside them.
    """
    if name in BACKBONES:
        family = import_module(f"featcache.backbones.families.{BACKBONES[name].family}")
        return cast(Backbone, family.open_model(name, weights_dir))
    known, at, weights = name.partition("@")
    if at and known in BACKBONES:
        return _of_weights(known, weights)
    path, colon, attribute = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _own_backbone(Path(path), attribute)
    if name.startswith(SAVED) or Path(name).is_dir():
        from featcache.backbones.families.library import open_place  # a heavy import, needed only here

        return open_place(name.removeprefix(SAVED))
    raise CallError(_unknown(name))


def store_name(name: str) -> str:
    """The name that a backbone's stores begin with: of what is the user's own it is the model's.

    Raises:
        CallError, WeightsError: as `load_backbone`.
    """
    is_place = any(mark in name for mark in (".py:", "@", SAVED)) or Path(name).is_dir()
    return load_backbone(name).info.name if is_place else name


def anywhere(name: str) -> str:
    """The same backbone for a process in another folder: paths that are here are absolute."""
    known, at, weights = name.partition("@")
    if at and known in BACKBONES:
        return f"{known}@{absolute(Path(weights))}" if Path(weights).exists() else name
    place = name.removeprefix(SAVED)
    is_path = name.rpartition(":")[0].endswith(".py") or Path(place).expanduser().is_dir()
    return str(absolute(Path(place).expanduser())) if is_path else name


def backbone_info(name: str) -> BackboneInfo:
    """What is known of a backbone in advance; opens no weights, and no code where `name` is registered.

    Raises:
        CallError: as `load_backbone`.
    """
    return BACKBONES[name].info if name in BACKBONES else load_backbone(name).info


def backbone_table(weights_dir: Path | None = None) -> list[BackboneRow]:
    """Every registered backbone, and whether its weights are on this machine; no network, no torch."""
    return [
        BackboneRow(
            info=model.info,
            bfloat16_off=BFLOAT16_OFF.get(model.family),
            clips_a_second=CLIPS_A_SECOND.get(model.info.name),
            weights=_status(model, weights_dir),
        )
        for model in BACKBONES.values()
    ]


def _status(
    model: Model, weights_dir: Path | None
) -> Literal["here", "missing", "incomplete", "none needed"]:
    if model.release is None:
        return "none needed"
    try:
        return "here" if find_weights(model.info.name, model.release, weights_dir) else "missing"
    except WeightsError:
        return "incomplete"


def _of_weights(name: str, weights: str) -> Backbone:
    if BACKBONES[name].release is None:
        raise CallError(f"{name} needs no weights: give those of {weights} to a model that has some.")
    backbone = load_backbone(name)
    from featcache.backbones.encoder import PretrainedBackbone  # torch, needed only here

    assert isinstance(backbone, PretrainedBackbone), "what has a release is one"
    return backbone.of_weights(own_weights(weights), weights)


def _own_backbone(path: Path, attribute: str) -> Backbone:
    backbone = getattr(_run_file(path), attribute, None)
    if backbone is None:
        raise CallError(
            f"{path} defines no {attribute!r}: name the object that is the backbone, as {path}:BACKBONE."
        )
    if isinstance(backbone, type):
        raise CallError(
            f"{path}:{attribute} is a class: make one object of it, BACKBONE = {attribute}(...), and name it."
        )
    lacking = [f"{method}()" for method in _METHODS if not callable(getattr(backbone, method, None))]
    if not isinstance(getattr(backbone, "info", None), BackboneInfo):
        lacking.insert(0, "info (a featcache.backbones.base.BackboneInfo)")
    if lacking:
        raise CallError(
            f"{path}:{attribute} is not a backbone: it lacks {', '.join(lacking)}. "
            "featcache.backbones.base.Backbone says what each must do."
        )
    return OwnBackbone(own=cast(Backbone, backbone), source=source_digest(path))


def _run_file(path: Path) -> Any:
    if not path.is_file():
        raise CallError(
            f"there is no file {path}: give the path of the Python file that defines your backbone."
        )
    spec = spec_from_file_location(f"{OWN_MODULE}{path.stem}", path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = module_from_spec(spec)
    # Where pickling, dataclasses and warnings look a class's module up.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as problem:  # whatever the user's own code raises
        raise CallError(f"{path} fails when it is run: {type(problem).__name__}: {problem}") from problem
    return module


def _unknown(name: str) -> str:
    return (
        f"no backbone is called {name!r}.{did_you_mean(name, BACKBONES)} Known are {', '.join(BACKBONES)}. "
        "Weights of your own go with one of them, as vjepa2_l@WEIGHTS; a model of your own is given as "
        "my_model.py:BACKBONE, one that transformers or timm saved as hf:FOLDER or hf:ORG/NAME."
    )
