"""What of a store's words stays at home: where on the exporter's machine files were.

Provenance and certificates tell of commands and of files that could not be read. Of a path in them a file's
name goes along and nothing else: not the folders of a machine, nor the users who have them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ABSOLUTE = re.compile(
    # Not within a relative path, nor in an address of the web; but where `file://` ends.
    r"(?:(?<![\w.:/~-])|(?<=file://))(?:~[\w.-]*)?/"
    # Folders, whose names may have blanks but do not go on where a sentence or a command does.
    r"(?:(?:(?! /| --|: |, | \()[^/\n'\"`<>|])*/)+"
    r"(?P<file>[^\s/'\"`<>|]*)"
)
_ELSEWHERE = "..."


def without_places(node: Any) -> Any:
    """A JSON value in which no text leads to a folder of this machine; all else as it was."""
    if isinstance(node, Mapping):
        return {key: _entry(key, value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [without_places(value) for value in node]
    return _without(node) if isinstance(node, str) else node


def places(node: Any) -> list[str]:
    """Texts that lead to a folder of this machine, where they cannot be left out: in what has a digest."""
    if isinstance(node, Mapping):
        return [text for value in node.values() for text in places(value)]
    if isinstance(node, list | tuple):
        return [text for value in node for text in places(value)]
    return [node] if isinstance(node, str) and _without(node) != node else []


def _entry(key: str, value: Any) -> Any:
    if key == "clip_list" and isinstance(value, Mapping):
        # Without a place nobody looks there for what changed.
        return {**without_places(value), "path": ""}
    return without_places(value)


def _without(text: str) -> str:
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
    return _ABSOLUTE.sub(lambda found: found["file"] if "." in found["file"] else _ELSEWHERE, text)
