"""What the operating system refuses, as one message: of which file, why, and the way out.

A quota is no full disk, a full disk may have room left that is not ours, and a file server that went away
comes back: each has a way out of its own.
"""

import errno
import os
from pathlib import Path

AGAIN = "run the same command again: what is on disk by now is kept"

WAYS_OUT = {
    errno.EIO: f"The disk, or its file server, failed: `dmesg` says more. When it is well, {AGAIN}.",
    errno.ESTALE: f"The file server lost sight of it. When it is back, {AGAIN}.",
    errno.ETIMEDOUT: f"The file server does not answer. When it does, {AGAIN}.",
    errno.ENOTCONN: f"The file system is not mounted any more. When it is, {AGAIN}.",
    errno.EHOSTDOWN: f"The file server is down. When it is back, {AGAIN}.",
    errno.EUCLEAN: f"The file system is damaged and wants to be checked. After that, {AGAIN}.",
    errno.EACCES: "Have its rights changed, or name another.",
    errno.EPERM: "Have its rights changed, or name another.",
    errno.EROFS: "It can only be read there: name a folder elsewhere.",
    errno.ENOENT: "Is the name right, and the folder mounted?",
    errno.ENOTDIR: "A part of its name is a file: name another, or move that file away.",
    errno.EEXIST: "Something else has the name: name another, or move that away.",
    errno.EISDIR: "Name a file.",
    errno.ENAMETOOLONG: "Name a shorter one.",
    errno.ELOOP: "Its links lead round in a circle: name what they were to lead to.",
    errno.EMFILE: f"Raise the limit (`ulimit -n`), or give fewer --decode-threads; then {AGAIN}.",
    errno.ENFILE: f"The machine has too many files open. When it has fewer, {AGAIN}.",
    errno.EFBIG: f"Files may not be larger here (`ulimit -f`, or the file system): raise that, and {AGAIN}.",
    errno.ENOMEM: f"The machine is out of memory. When it has more, {AGAIN}.",
    errno.ENODEV: f"The device is gone. When it is back, {AGAIN}.",
}


def refusal(problem: OSError) -> str:
    """One message for what the operating system said: file, reason, way out."""
    named = [
        os.fsdecode(name) for name in (problem.filename, problem.filename2) if isinstance(name, str | bytes)
    ]
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_room(problem, Path(named[-1]) if named else None)
    # A library's own errors may be of this kind and have a text, but no number.
    what = f"{' -> '.join(named)}: " * bool(named) + (problem.strerror or str(problem) or repr(problem))
    way_out = WAYS_OUT.get(problem.errno or 0)
    return f"{what}. {way_out}" if way_out else what


def no_room(problem: OSError, path: Path | None, needed: str = "") -> str:
    """Why there is no room for the file at `path`, and the way out.

    Args:
        problem: ENOSPC or EDQUOT.
        path: of the file or folder, which need not be there; None where it is not known.
        needed: what was to be written, as the rest of a sentence that says what is free.
    """
    of, free, files_left = ("", None, True) if path is None else (f" of {path}", *_room(path))
    there = "" if free is None else f"{free:,} bytes are free{needed}"
    if problem.errno == errno.EDQUOT:
        beside = f"; on the disk itself {there}" if there else ""
        return f"the quota on the disk{of} is used up{beside}. `quota -s` shows it: make room, and {AGAIN}."
    if not files_left:
        return f"the disk{of} holds no more files (inodes), though {there}. Remove some, and {AGAIN}."
    there = f": {there}" if there else ""
    return f"the disk{of} is full{there}. Make room, or use another folder; then {AGAIN}."


def nearest_folder(path: Path) -> Path:
    """The path, or the folder above it that is there: what is not made yet will be on its disk."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _room(path: Path) -> tuple[int | None, bool]:
    """Bytes that are free, if that is known, and whether another file may be made."""
    try:
        found = os.statvfs(nearest_folder(path))
    except (OSError, StopIteration):
        return None, True
    return found.f_bavail * found.f_frsize, found.f_favail > 0 or not found.f_files
