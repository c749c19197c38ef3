"""The text of a YAML file as plain values, without YAML's traps; what is wrong is one message with its line.

Keys are texts as written, also where they look like a number, `yes` or a date, and none stands twice. A date
is text, a number is decimal: `010` is no 8, and `1:30` no 90. Nesting, size and what aliases stand for are
bounded, so that no file takes memory or time that its size does not show.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from featcache.errors import CallError
from featcache.system.files import read_regular

MOST_BYTES = 2**20
"""Of a manifest: fifty times the shipped one."""
MOST_DEEP = 32
MOST_ENTRIES = 10_000
"""Values in a file, those that an alias repeats counted again."""


def read_yaml(path: Path) -> Any:
    """The values of a YAML file.

    Raises:
        CallError: it cannot be read, is not UTF-8 or not YAML, is too large or deep, or has a key twice; the
            message names the file, and the line where there is one.
    """
    try:
        content = read_regular(path, limit=MOST_BYTES)
    except OSError as problem:
        raise CallError(f"{path} cannot be read ({problem.strerror}): give a manifest that exists.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise CallError(
            f"{path}, line {line}: byte 0x{content[problem.start]:02x} is not UTF-8: save the file as UTF-8."
        ) from None
    try:
        return _Loader(text).get_single_data()
    except yaml.reader.ReaderError as problem:
        line, what = text.count("\n", 0, problem.position) + 1, f"character {chr(problem.character)!r}"
        raise CallError(f"{path}, line {line}: is not YAML: {what} is not allowed; remove it.") from None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = ", ".join(filter(None, (problem.context, problem.problem)))
        hint = " Indent with spaces." if "'\\t'" in what else ""
        raise CallError(f"{path}{where}: is not YAML: {what}.{hint}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, bounded, and with the kinds of plain values of YAML 1.2."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._n_entries = 0
        self._size_of: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        anchor = getattr(event, "anchor", None)
        before, self._depth = self._n_entries, self._depth + 1
        self._n_entries += 1
        if isinstance(event, yaml.AliasEvent):
            if anchor in self.anchors and anchor not in self._size_of:
                _refuse(f"the alias *{anchor} stands within what it stands for", event.start_mark)
            self._n_entries += self._size_of.get(anchor or "", 0)
        if self._depth > MOST_DEEP:
            _refuse(f"nested more than {MOST_DEEP} deep", event.start_mark)
        if self._n_entries > MOST_ENTRIES:
            _refuse(f"more than {MOST_ENTRIES} values, repeated ones counted", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._size_of[anchor] = self._n_entries - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines = dict[str, int]()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                _refuse("a key must be a word, not a list or mapping", key.start_mark)
            if key.value in lines:
                _refuse(
                    f"the key {key.value!r} stands twice, first in line {lines[key.value]}", key.start_mark
                )
            lines[key.value] = key.start_mark.line + 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as problem:
            _refuse(f"{node.tag} cannot be read ({problem})", node.start_mark)


def _refuse(what: str, mark: Any) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, what, mark)


_NUMBER = r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"

_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF", "tTfFyYnNoO"),
    ("int", r"[-+]?(0|[1-9][0-9]{0,17})", "-+0123456789"),
    ("float", rf"{_NUMBER}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
