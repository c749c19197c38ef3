"""A mapping of a YAML file and its path there, so that a wrong value is one message that says where."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

from featcache.errors import CallError, did_you_mean
from featcache.manifest.yaml_text import read_yaml

_T = TypeVar("_T", int, float, str)
_Entry = TypeVar("_Entry")
_NAMES: dict[type, str] = {int: "a whole number", float: "a number", str: "text"}
_SHOWN = 200
"""Characters of a wrong value that a message repeats."""

MOST = 10**12
"""No number of a manifest is larger: clips, pixels, hours. Nor is one infinite."""


@dataclass(frozen=True, slots=True)
class Node:
    """A mapping of the file, and where in the file it is."""

    entries: Any
    origin: str
    path: str = ""
    """Keys that lead to it, joined by dots."""

    def error(self, key: str | None, expected: str) -> CallError:
        """What to raise for the value under `key`, or for the whole mapping."""
        path = ".".join(filter(None, (self.path, key))) or "the top"
        found = self.entries if key is None else self.entries.get(key)
        text = repr(found)
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        return CallError(f"{self.origin}, at {path}: expected {expected}; found {shown}.")

    def keys(self, *allowed: str) -> None:
        """Refuse any key that nobody would read."""
        if not isinstance(self.entries, dict):
            raise self.error(None, f"a mapping with some of {', '.join(allowed)}")
        for key in self.entries:
            if key not in allowed:
                hint = did_you_mean(str(key), allowed) or f" Known are {', '.join(allowed)}."
                raise CallError(f"{self.origin}, at {self.path or 'the top'}: unknown key {key!r}.{hint}")

    def fields(self, kind: type) -> "tuple[Field[Any], ...]":
        """The fields of a dataclass, if no key is another (`name` is the mapping's own)."""
        self.keys(*(field.name for field in fields(kind) if field.name != "name"))
        return fields(kind)

    def child(self, key: str) -> "Node":
        """The mapping under `key`, empty where there is no such key."""
        return Node(self.entries.get(key, {}), self.origin, ".".join(filter(None, (self.path, str(key)))))

    def children(self, key: str, *, optional: bool = False) -> list[tuple[str, "Node"]]:
        """The mappings under `key`, by their names."""
        node = self.child(key)
        if not isinstance(node.entries, dict) or not (node.entries or optional):
            raise self.error(key, "a mapping of names to entries")
        return [(str(name), node.child(name)) for name in node.entries]

    def items(self, key: str) -> list["Node"]:
        """The entries of the list under `key`, none where there is no such key."""
        entries = self.entries.get(key, [])
        if not isinstance(entries, list):
            raise self.error(key, "a list")
        path = self.child(key).path
        return [Node(entry, self.origin, f"{path}[{i}]") for i, entry in enumerate(entries)]

    def scalar(self, kind: type[_T]) -> _T:
        """The entry itself, a plain value of type `kind`."""
        entry = kind(self.entries) if kind is float and type(self.entries) is int else self.entries
        if type(entry) is not kind:
            raise self.error(None, _NAMES[kind])
        if not isinstance(entry, str) and not abs(entry) <= MOST:
            raise self.error(None, f"{_NAMES[kind]} between -{MOST:,} and {MOST:,}")
        return entry

    def value(self, key: str, kind: type[_T]) -> _T:
        """The plain value under `key`, which must be there."""
        if key not in self.entries:
            raise self.error(key, _NAMES[kind])
        return self.child(key).scalar(kind)

    def at_least(self, key: str, least: int) -> int:
        """The whole number of at least `least` under `key`, which must be there."""
        number = self.value(key, int)
        if number < least:
            raise self.error(key, f"a number of at least {least}")
        return number

    def choice(self, key: str, allowed: tuple[str, ...]) -> Any:
        """The text under `key`, which must be one of `allowed`."""
        value = self.value(key, str)
        if value not in allowed:
            raise self.error(key, f"one of {', '.join(allowed)}")
        return value

    def build(self, kind: type[_Entry], **given: Any) -> _Entry:
        """A dataclass made of what is `given` and of the mapping, whose values are read as the fields say.

        Whole numbers are at least 1, or 0 where that is the default. A null stands for no key at all.
        """
        for field in self.fields(kind):
            required = field.default is MISSING and field.default_factory is MISSING
            if field.name not in given and (required or self.entries.get(field.name) is not None):
                given[field.name] = self._read(field, required)
        return kind(**given)

    def _read(self, field: "Field[Any]", required: bool) -> Any:
        key, kind = field.name, cast(Any, field.type)
        if isinstance(kind, UnionType):
            (kind,) = set(get_args(kind)) - {NoneType}
        shape, (*_, entry) = get_origin(kind), get_args(kind) or (kind,)
        if shape is Literal:
            return self.choice(key, get_args(kind))
        if shape is Mapping:
            return {
                name: node._entry(entry, name=name)
                for name, node in self.children(key, optional=not required)
            }
        if shape is tuple:
            entries, args = self.items(key), get_args(kind)
            if args[-1] is not Ellipsis and len(entries) != len(args):
                raise self.error(key, f"a list of {len(args)}")
            return tuple(node._entry(args[0]) for node in entries)
        if kind is int:
            return self.at_least(key, 0 if field.default == 0 else 1)
        return self.child(key)._entry(kind) if is_dataclass(kind) else self.value(key, kind)

    def _entry(self, kind: Any, **given: Any) -> Any:
        if kind is object:
            return self.entries
        is_entry = isinstance(kind, type) and is_dataclass(kind)
        return self.build(kind, **given) if is_entry else self.scalar(kind)


def read_entries(path: Path) -> dict[str, Any]:
    """The top of a YAML file; raises CallError where it is none."""
    entries = read_yaml(path)
    if not isinstance(entries, dict):
        raise CallError(f"{path}, at the top: expected datasets and tasks; found {type(entries).__name__}.")
    return entries


def overlay(under: Any, over: Any) -> Any:
    """`over` laid on `under`: mappings key by key, anything else replaced whole."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    merged = {key: overlay(under[key], value) if key in under else value for key, value in over.items()}
    return {**under, **merged}
