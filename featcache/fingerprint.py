"""The digest of everything that changes a feature, and the readable difference of two.

A store is found, resumed and trusted by its fingerprint, so it covers what changes a number (weights,
preprocessing, clips, views, layers, dtype, the feature version) and nothing that does not (batch size,
device, paths). The parts stay readable beside the digest: a refusal names the fields, not two hashes.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from featcache.errors import CallError

FEATURE_VERSION = 1
"""Raised by hand when code changes stored numbers; the CHANGELOG's `Caches` line says whose."""

SHORT = 8
"""Hex digits of a fingerprint in the name of a store."""

MISSING = object()
"""Stands for a part that one side does not have."""


def fingerprint(parts: Mapping[str, Any]) -> str:
    """sha256, as 64 hex digits, of `parts` as canonical JSON: keys sorted, no blanks, ASCII.

    The order of keys does not matter, nor whether a list came as a tuple; 1 and 1.0 do differ.

    Raises:
        CallError: a part is not JSON (NaN and infinity are not either), or a key is not a string.
    """
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def canonical(parts: Mapping[str, Any]) -> str:
    """The one JSON text of `parts`.

    Raises:
        CallError: as `fingerprint`.
    """
    try:
        _refuse_other_keys(parts, "")
        return json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise CallError(
            "fingerprint parts are nested too deeply: give numbers, text, lists and dicts."
        ) from None
    except CallError:
        raise
    except (TypeError, ValueError) as problem:
        raise CallError(
            f"fingerprint parts must be JSON: {problem}. Give numbers, text, lists and dicts."
        ) from problem


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """One line for every leaf that differs: `backbone.weights: 3fa9... here, 77c0... asked for`.

    Args:
        ours: what is here, in the store.
        theirs: what was asked for.
    """
    # Through JSON and back, so that a tuple given and the list read from disk are the same.
    pairs = _leaves(json.loads(canonical(ours)), json.loads(canonical(theirs)), "")
    return [_line(name, mine, yours) for name, mine, yours in pairs]


def _refuse_other_keys(node: object, path: str) -> None:
    # json.dumps would turn the keys 1 and "1" into the same text.
    if isinstance(node, Mapping):
        for key, value in node.items():
            if not isinstance(key, str):
                raise CallError(
                    f"fingerprint part {path}{key!r}: keys must be text, this is {type(key).__name__}."
                )
            _refuse_other_keys(value, f"{path}{key}.")
    elif isinstance(node, list | tuple):
        for value in node:
            _refuse_other_keys(value, path)


def _leaves(ours: Any, theirs: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from _leaves(ours.get(key, MISSING), theirs.get(key, MISSING), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
            yield from _leaves(mine, yours, f"{path}.{number}")
    # 1 == 1.0 == True in Python, but not in the digest.
    elif ours is MISSING or theirs is MISSING or json.dumps(ours) != json.dumps(theirs):
        yield path.removeprefix("."), ours, theirs


def _line(name: str, ours: Any, theirs: Any) -> str:
    if ours is MISSING:
        return f"{name}: missing here, {_short(theirs, ours)} asked for"
    if theirs is MISSING:
        return f"{name}: {_short(ours, theirs)} here, not asked for"
    return f"{name}: {_short(ours, theirs)} here, {_short(theirs, ours)} asked for"


def _short(value: Any, other: Any, length: int = 60) -> str:
    """A value as printed: a digest by its first digits, long text cut only where the cut still differs."""
    if isinstance(value, str) and len(value) == 64 and str(other)[:12] != value[:12]:
        return f"{value[:12]}..."
    text, against = json.dumps(value), "" if other is MISSING else json.dumps(other)
    return text if len(text) <= length or against[:length] == text[:length] else f"{text[:length]}..."
