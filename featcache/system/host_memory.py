"""How much memory a process may still have: of the machine, and of the control groups that it runs in.

A SLURM job or a container is ended when its group has more than it was given, however much the machine has.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

UNIFIED, FIRST = "", "memory"
"""The controllers of a line of /proc/self/cgroup: none of version 2, this one of version 1."""

_FILES = {
    UNIFIED: ("sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file")),
    FIRST: (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
}
"""Controller -> where its groups are mounted, a group's limit and use, and what it would give up."""


def available_host_bytes(root: Path = Path("/")) -> int:
    """Bytes that this process can still have; what the page cache can give up is among them.

    Source: proc_meminfo(5); cgroup-v2.rst and cgroup-v1/memory.rst of the Linux kernel.

    Args:
        root: of the file system, whose `proc` and `sys` are asked.

    Raises:
        OSError: the system does not say.
    """
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return max(0, min([1024 * int(line.split()[1]), *_left_in_groups(root)]))
    raise OSError("/proc/meminfo does not say what memory is available")


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each limited group leaves that this process is in, the groups that hold it included."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, name = line.split(":", 2)
        kind = FIRST if FIRST in controllers.split(",") else controllers
        if kind not in _FILES:
            continue
        mount, limit, used, cache = _FILES[kind]
        top = root / mount
        group = top / name.strip("/")
        # In a container the name may be the host's: then its own group is the one on top.
        for folder in (group, *group.parents) if group.is_dir() else (top,):
            with suppress(OSError, ValueError, KeyError):  # no such file: not limited; "max": no number
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                taken = int((folder / used).read_text()) - sum(int(stat[part]) for part in cache)
                yield int((folder / limit).read_text()) - taken
            if folder == top:
                break
