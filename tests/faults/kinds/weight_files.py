"""Kinds of weight files: every format that models are released in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults.kinds.base import Kind
from tests.faults.world import WEIGHT_FILES, World, outputs

_FOLDERS = ("weights",)


def loaded(world: World, damaged: Path) -> Mapping[str, Any]:
    """As `extract` and `certify` load them; the digest is what a fingerprint would name."""
    folder = damaged.parent
    return outputs(folder / WEIGHT_FILES[folder.name])


KINDS = (
    Kind(
        name="weights, safetensors",
        without=("huge",),
        files=("weights/safetensors/*.safetensors",),
        read=loaded,
        folders=_FOLDERS,
        peers=("weights/index/*.safetensors",),
        weight=2,
    ),
    Kind(name="note of the first load", files=("weights/*/*.sha256",), read=loaded, folders=_FOLDERS),
    Kind(name="weights, index", files=("weights/index/*.json",), read=loaded, folders=_FOLDERS),
    Kind(
        name="weights, one of several files",
        without=("huge",),
        files=("weights/index/*.safetensors",),
        read=loaded,
        folders=_FOLDERS,
        weight=2,
    ),
    Kind(
        name="weights, npz",
        without=("huge",),
        files=("weights/npz/*.npz",),
        read=loaded,
        folders=_FOLDERS,
        weight=2,
    ),
    Kind(
        name="weights, torch pickle",
        without=("huge",),
        files=("weights/pickle/*.pth.tar",),
        read=loaded,
        folders=_FOLDERS,
        weight=2,
    ),
)
