"""Ways in which a file comes to be another one: bits, blocks, whole files, numbers in JSON, odd inodes.

A mutation is named and drawn from a seed, so that a line of the table can be repeated. It is given the file
and its *peers*, files of the same kind, and *strangers*, files of others.
"""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Change = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A file that is about to be damaged, and what others there are."""

    path: Path
    peers: Sequence[Path] = ()
    strangers: Sequence[Path] = ()


def mutate(name: str, at: Damaged, rng: random.Random) -> str:
    """Damage a file in place; says in what way, for a message. The mutation may leave it as it was."""
    if name in BYTES:
        content = at.path.read_bytes()
        write(at.path, BYTES[name](content, rng) if content else b"\1")
        return name
    if name in JSON:
        document = json.loads(at.path.read_bytes())
        what = JSON[name](document, rng)
        write(at.path, what.content if isinstance(what, _Whole) else json.dumps(document).encode())
        return f"{name} {what}"
    return FILES[name](at, rng)


def names_for(at: Damaged, without: Sequence[str] = ()) -> list[str]:
    """The mutations that can be made of a file, but for some."""
    names = list(BYTES)
    if at.path.suffix == ".json" or at.path.name in (".zarray", ".zattrs", ".zmetadata", ".zgroup"):
        # A document has more to get wrong than its bytes.
        names += 2 * list(JSON)
    others = {"swap": at.peers, "peer": at.peers, "stranger": at.strangers}
    return names + [name for name in FILES if others.get(name, True) and name not in without]


def write(path: Path, content: bytes) -> None:
    """Replace a file by another one, never in place: a copy may share its bytes with the original."""
    path.unlink()
    path.write_bytes(content)


def _place(data: bytes, rng: random.Random, most: int = 64) -> slice:
    start = rng.randrange(len(data))
    return slice(start, min(len(data), start + rng.randint(1, most)))


def _replaced(data: bytes, at: slice, new: bytes) -> bytes:
    return data[: at.start] + new + data[at.stop :]


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return _replaced(data, slice(at, at + 1), bytes([data[at] ^ 1 << rng.randrange(8)]))


def set_byte(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return _replaced(data, slice(at, at + 1), rng.choice((b"\0", b"\xff")))


def random_bytes(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng, 16)
    return _replaced(data, at, rng.randbytes(at.stop - at.start))


def zero_block(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng, min(4096, max(8, len(data) // 2)))
    return _replaced(data, at, bytes(at.stop - at.start))


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((len(data) - 1, len(data) // 2, rng.randrange(len(data))))]


def extend(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0", b"\n", rng.randbytes(8), bytes(4096), data[-512:]))


def duplicate_block(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng, 512)
    return data[: at.stop] + data[at] + data[at.stop :]


def delete_block(data: bytes, rng: random.Random) -> bytes:
    return _replaced(data, _place(data, rng, 512), b"")


def swap_blocks(data: bytes, rng: random.Random) -> bytes:
    size = min(rng.choice((4, 64, 512)), len(data) // 2)
    if not size:
        return data
    first, second = sorted(rng.sample(range(len(data) // size), 2))
    a, b = slice(first * size, (first + 1) * size), slice(second * size, (second + 1) * size)
    return data[: a.start] + data[b] + data[a.stop : b.start] + data[a] + data[b.stop :]


def change_number(data: bytes, rng: random.Random) -> bytes:
    """Four or eight bytes, at a boundary: a count or an offset of a binary header."""
    size = rng.choice((4, 8))
    if len(data) < size:
        return data + b"\1"
    at = rng.randrange(len(data) // size) * size
    kind = {4: "<i", 8: "<q"}[size]
    value = struct.unpack(kind, data[at : at + size])[0]
    new = rng.choice((value + 1, -1, 2 ** (8 * size - 2), 0))
    clipped = max(-(2 ** (8 * size - 1)), min(new, 2 ** (8 * size - 1) - 1))
    return _replaced(data, slice(at, at + size), struct.pack(kind, clipped))


BYTES: dict[str, Change] = {
    "bit": flip_bit,
    "byte": set_byte,
    "bytes": random_bytes,
    "zeros": zero_block,
    "truncated": truncate,
    "extended": extend,
    "doubled": duplicate_block,
    "cut": delete_block,
    "swapped": swap_blocks,
    "number": change_number,
}


class _Whole(str):
    """What is in a document instead of all of it."""

    content: bytes = b""


def _leaves(node: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from _leaves(value)


def json_number(document: Any, rng: random.Random) -> str:
    leaves = [
        (node, key)
        for node, key in _leaves(document)
        if isinstance(node[key], int | float) and not isinstance(node[key], bool)
    ]
    if not leaves:
        return json_value(document, rng)
    node, key = rng.choice(leaves)
    value = node[key]
    node[key] = rng.choice((value + 0.5, 10**12, -value, value + 1, 0, str(value), 10**400))
    return f"{key}: {value} -> {str(node[key])[:20]}"


def json_value(document: Any, rng: random.Random) -> str:
    leaves = list(_leaves(document))
    if not leaves:
        return "nothing in it"
    node, key = rng.choice(leaves)
    before = node[key]
    new: Any = (None, True, [], {}, "", "other", [before], float("nan"))
    node[key] = rng.choice([*new, before[::-1]] if isinstance(before, str | list) else new)
    return f"{key}: {str(before)[:20]} -> {str(node[key])[:20]}"


def json_deleted(document: Any, rng: random.Random) -> str:
    leaves = list(_leaves(document))
    if not leaves:
        return "nothing in it"
    node, key = rng.choice(leaves)
    del node[key]
    return str(key)


def json_added(document: Any, rng: random.Random) -> str:
    nodes = [document, *(node[key] for node, key in _leaves(document))]
    node = rng.choice([one for one in nodes if isinstance(one, dict | list)] or [[]])
    if isinstance(node, dict):
        node["added"] = 1
    else:
        node.append(1)
    return "an entry"


def json_whole(_: Any, rng: random.Random) -> str:
    name, content = rng.choice(
        (
            ("deep", b"[" * 200_000 + b"]" * 200_000),
            ("deep object", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
            ("a list", b"[]"),
            ("null", b"null"),
            ("a number", b"1e999"),
            ("long number", b"9" * 5_000),
            ("not UTF-8", b'{"\xff\xfe": 1}'),
        )
    )
    whole = _Whole(name)
    whole.content = content
    return whole


JSON: dict[str, Callable[[Any, random.Random], str]] = {
    "JSON number": json_number,
    "JSON value": json_value,
    "JSON deleted": json_deleted,
    "JSON added": json_added,
    "JSON whole": json_whole,
}


SWAPPED = "swap with "


def swap(at: Damaged, rng: random.Random) -> str:
    other = rng.choice(at.peers)
    mine, theirs = at.path.read_bytes(), other.read_bytes()
    write(at.path, theirs)
    write(other, mine)
    return f"{SWAPPED}{other}"


def peer(at: Damaged, rng: random.Random) -> str:
    other = rng.choice(at.peers)
    write(at.path, other.read_bytes())
    return f"copy of {other.parent.name}/{other.name}"


def stranger(at: Damaged, rng: random.Random) -> str:
    other = rng.choice(at.strangers)
    write(at.path, other.read_bytes())
    return f"copy of {other.name}"


def empty(at: Damaged, _: random.Random) -> str:
    write(at.path, b"")
    return "empty"


def missing(at: Damaged, _: random.Random) -> str:
    at.path.unlink()
    return "missing"


def fifo(at: Damaged, _: random.Random) -> str:
    at.path.unlink()
    os.mkfifo(at.path)
    return "a FIFO"


def directory(at: Damaged, _: random.Random) -> str:
    at.path.unlink()
    at.path.mkdir()
    return "a directory"


def endless(at: Damaged, _: random.Random) -> str:
    at.path.unlink()
    at.path.symlink_to("/dev/zero")
    return "a link to /dev/zero"


def loop(at: Damaged, _: random.Random) -> str:
    at.path.unlink()
    at.path.symlink_to(at.path.name)
    return "a link to itself"


def dangling(at: Damaged, _: random.Random) -> str:
    at.path.unlink()
    at.path.symlink_to("nowhere")
    return "a link to nothing"


def huge(at: Damaged, _: random.Random) -> str:
    """Sparse: it takes no room on the disk, and all memory of whoever reads it whole."""
    content = at.path.read_bytes()
    write(at.path, content)
    with at.path.open("r+b") as file:
        file.truncate(8 * 2**30)
    return "8 GiB"


FILES: dict[str, Callable[[Damaged, random.Random], str]] = {
    "swap": swap,
    "peer": peer,
    "stranger": stranger,
    "empty": empty,
    "missing": missing,
    "fifo": fifo,
    "directory": directory,
    "endless": endless,
    "loop": loop,
    "dangling": dangling,
    "huge": huge,
}


def clone(source: Path, target: Path) -> None:
    """A copy of a folder whose files may be changed."""
    shutil.copytree(source, target, symlinks=True, copy_function=shutil.copy)
