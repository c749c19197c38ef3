"""A warm parent: every module that a child will need is imported, and nothing of it was used yet.

A fork takes threads along as locks that nobody holds any more, so the parent only imports; even the world is
built in a child, which says what it had to import.
"""

import contextlib
import importlib
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.faults.trial import Ended, Note, run
from tests.faults.world import World, build

torch.set_num_threads(1)


def world(root: Path, parts: Sequence[str]) -> World:
    """Parts of the undisturbed world, built in a child whose imports are then done here as well."""
    ended = run(partial(_build, root, parts), seconds=600, n_bytes=2**40)
    if ended.how != "ok":
        raise RuntimeError(f"the undisturbed world could not be built: {ended}")
    import_all(ended)
    return World(root, root / "data")


def import_all(ended: Ended) -> None:
    """Import what a child imported."""
    for name in ended.facts:
        # What is made on the fly, or of a user's own, is not to be found by its name.
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _build(root: Path, parts: Sequence[str]) -> Any:
    logging.disable(logging.WARNING)
    build(root, parts)
    Note.write([name for name in sys.modules if not name.startswith(("scivid_own", "__", "tests"))])
    return {}
