"""What can go wrong in a way the user should read about.

Every message says what is wrong, with the value, and what to do next. The command line prints it
without a traceback and ends with the class's exit code; from Python they are ordinary exceptions. Below them
are the phrases that many messages share.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class ScividError(Exception):
    """The base of every error that is meant to be read by a user."""

    exit_code = 1


class CallError(ScividError, ValueError):
    """The call was wrong: an unknown name, a value out of range, a file that is not a manifest."""

    exit_code = 2


class DataError(ScividError):
    """Source data are missing, truncated or broken; the message names file, record and way out."""


class WeightsError(ScividError):
    """A backbone's weights are missing or do not fit; says which file, whose, and where to put it."""


class DownloadError(ScividError):
    """A file did not come from its server, or not whole and right; says what to do."""


class StoreError(ScividError):
    """A feature store is incomplete, corrupt, or not the one that was asked for."""


class DamagedFileError(StoreError):
    """A file of ours is not what was written, or cannot be read; names it and the way out."""


class ClusterError(ScividError):
    """Workers that a command needs cannot be had, or differ from it, or are gone; says how to start some."""


class TrainingError(ScividError):
    """A readout's training went astray; names run and step. What was written before stays."""


def few(things: Iterable[object], n: int = 5) -> str:
    """The first `n` of some things, and how many more there are."""
    names = [str(thing) for thing in things]
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def listed(lines: Sequence[str]) -> str:
    """Lines of a message below its first, indented."""
    return "\n".join(f"  {line}" for line in lines)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, where something that is known resembles `name`; otherwise nothing."""
    near = get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
