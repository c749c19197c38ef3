"""The form of a bundle: plain files laid out as a cache, and one sealed index that lists all of them.

    BUNDLE/bundle.json                        sizes and digests, licences, golden values, versions
    BUNDLE/TASK/ROLE/targets-DIGITS.zarr/     a group of targets
    BUNDLE/TASK/ROLE/BACKBONE-DIGITS.zarr/    a store

A folder on a disk, or whatever a web server serves as files. The seal tells damage, not malice: what an index
says is checked before a byte is written where it says.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Literal

from featcache.errors import CallError, DamagedFileError
from featcache.manifest.entries import Node
from featcache.system.sealed import json_sealed, json_unsealed

INDEX = "bundle.json"
MOST_INDEX_BYTES = 2**28
"""An index is read whole; one of a million files takes a hundred MB."""

CERTIFICATE = "certificate.json"
"""What stage two keeps with a store: layer -> verdict. It is carried, and never judged here."""

FORMAT = 1
"""Raised when older code could misread a bundle."""

_LONGEST_NAME = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedFile:
    """A file of a store, or of a group of targets."""

    path: str
    """Below its folder."""
    n_bytes: int = 0
    sha256: str

    def __post_init__(self) -> None:
        refuse_path(self.path, depths=(1, 2))
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise CallError(f"{self.path} has no sha256 but {self.sha256[:70]!r}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden:
    """Tokens of one clip in few numbers, to hold an extraction of one's own against."""

    clip: str
    """Its id."""
    digest: str
    """That of its source in the clip table."""
    view: int = 0
    layer: str
    sha256: str
    """Of the tokens [step, row, column, channel] as little-endian float16, in C order."""
    mean: float
    std: float
    numbers: tuple[float, ...]
    """Evenly spaced ones of the tokens, the first and the last among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedFolder:
    """A store, or a group of targets: visible whole or not at all."""

    path: str
    """TASK/ROLE/NAME.zarr, below a cache as below the bundle."""
    files: tuple[SharedFile, ...]
    golden: tuple[Golden, ...] = ()
    """Of a store."""

    def __post_init__(self) -> None:
        refuse_path(self.path, depths=(3,))
        names = [file.path for file in self.files]
        if "zarr.json" not in names or len({name.casefold() for name in names}) != len(names):
            raise CallError(f"{self.path} lacks its zarr.json, or names a file twice.")
        if {name.partition("/")[0] for name in names if "/" in name} & set(names):
            raise CallError(f"{self.path} has a file where it has a folder.")
        if not self.path.endswith(".zarr"):
            raise CallError(f"{self.path} is no name of a store.")

    @property
    def holds_targets(self) -> bool:
        """Whether it is a group of targets."""
        return PurePosixPath(self.path).name.startswith("targets-")

    @property
    def n_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.n_bytes for file in self.files)


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Under which licence something in the bundle is, and whom to cite for it."""

    of: Literal["weights", "data"]
    title: str
    licence: str
    restriction: str = ""
    """What it forbids, for people: `not for commercial use`."""
    must_accept: Literal["yes", "no"] = "no"
    """Whether its owner gives it only to those who accept the licence."""
    source: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        if not all(text.isprintable() for text in (self.title, self.licence, self.restriction, str(self))):
            raise CallError("the terms of a licence hold what no terminal should be sent.")

    def __str__(self) -> str:
        first = "to be accepted first" if self.must_accept == "yes" else ""
        told = (self.restriction.upper(), first, self.source, self.citation and f"cite: {self.citation}")
        return f"{self.of} {self.title}: licence {', '.join(filter(None, (self.licence, *told)))}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """The index of a bundle."""

    format: int = FORMAT
    folders: tuple[SharedFolder, ...]
    """Targets before the stores that need them."""
    terms: tuple[Terms, ...] = ()
    software: Mapping[str, str]
    """Package -> version, of the export; those of an extraction are in its store."""
    command: str
    made: str
    """When, in ISO 8601, UTC."""

    def __post_init__(self) -> None:
        if not self.origin.isprintable():
            raise CallError("what made it holds what no terminal should be sent.")
        if self.format != FORMAT:
            raise CallError(f"it has the format {self.format}: another version of scivid made it.")
        if len({folder.path.casefold() for folder in self.folders}) != len(self.folders) or not self.folders:
            raise CallError("it lists no store, or one of them twice.")

    @property
    def origin(self) -> str:
        """What made it and when, in a line."""
        versions = ", ".join(f"{name} {version}" for name, version in self.software.items())
        return f"exported {self.made} ({versions}) by: {self.command}"

    @property
    def n_bytes(self) -> int:
        """Bytes of all files but the index."""
        return sum(folder.n_bytes for folder in self.folders)

    @property
    def n_files(self) -> int:
        """Files but the index."""
        return sum(len(folder.files) for folder in self.folders)

    def files(self) -> Iterator[tuple[str, SharedFile]]:
        """Path below the bundle, and the file."""
        for folder in self.folders:
            for file in folder.files:
                yield f"{folder.path}/{file.path}", file

    def to_bytes(self) -> bytes:
        """The sealed file."""
        return json_sealed(asdict(self), indent=1)


def bundle_from(content: bytes, origin: str) -> Bundle:
    """What an index says, once every name, size and digest in it was found to be one.

    Args:
        content: of the file.
        origin: its name or address, for messages.

    Raises:
        DamagedFileError: it was changed, is no index, or says what no bundle can.
    """
    way_out = "Get the bundle once more from whoever made it."
    try:
        document, sealed = json_unsealed(content)
        if not sealed:
            raise ValueError("it has no seal")
        return Node(document, origin).build(Bundle)
    except (ValueError, RecursionError) as problem:  # a CallError is one
        told = str(problem)
        told = told if told.startswith(origin) else f"{origin}: {told}"
        raise DamagedFileError(
            f"{told.removesuffix('.')}. It is not the index of a bundle. {way_out}"
        ) from problem


def one_line(text: str) -> str:
    """A text as an index may have it: on one line, without what no terminal should be sent."""
    return "".join(filter(str.isprintable, " ".join(text.split())))


def refuse_path(path: str, *, depths: tuple[int, ...]) -> None:
    """Refuse what would lead out of the folder that it is meant for, or to what is hidden in it.

    Args:
        path: to a file or folder of a bundle.
        depths: how many names it may have.

    Raises:
        CallError: it leads elsewhere, or a name in it is none that every file system takes.
    """
    names = path.split("/")
    good = all(
        0 < len(name.encode()) <= _LONGEST_NAME
        and name[0] not in ".-~"
        and name.isprintable()
        and "\\" not in name
        for name in names
    )
    if not good or len(names) not in depths:
        raise CallError(f"{path[:200]!r} is no place for a file of a bundle.")
