"""Whether files may be mapped: not those that another machine can cut."""

import errno
import mmap
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

from featcache.buckets.path import BucketPath

LOCAL_FILE_SYSTEMS = {
    "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "rootfs",
    "squashfs", "tmpfs", "xfs", "zfs",
}  # fmt: skip
"""Those whose files nobody but this machine can cut."""

MADV_POPULATE_READ = 22
"""Linux 5.14 and later: bring pages into memory and say what the disk refuses (asm-generic/mman-common.h)."""


@cache
def can_populate() -> bool:
    """Whether this system knows `MADV_POPULATE_READ`."""
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        try:
            page.madvise(MADV_POPULATE_READ)
        except OSError as problem:
            assert problem.errno == errno.EINVAL
            return False
    return True


def is_local(path: Path) -> bool:
    """Whether the file system of `path` is known to be this machine's own; what is not known is not.

    A file that another machine cuts while it is mapped here ends the process that touches it.
    """
    if isinstance(path, BucketPath):
        return False
    device = path.stat().st_dev
    if device not in _LOCAL:
        kinds, there = _mounted(), path.resolve()
        kind = next((kinds[one] for one in (there, *there.parents) if one in kinds), "")
        _LOCAL[device] = kind in LOCAL_FILE_SYSTEMS
    return _LOCAL[device]


_LOCAL: dict[int, bool] = {}
"""Device number -> what was found of its file system: stores are opened by the hundred."""


def _mounted() -> dict[Path, str]:
    """Where a file system is mounted -> its kind; nothing where the system does not tell as Linux does."""
    kinds = {}
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            of_mount, _, of_source = line.partition(" - ")
            # Blanks and backslashes in names stand there as octal escapes.
            folder = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), of_mount.split()[4])
            kinds[Path(folder)] = of_source.split()[0]
    return kinds
