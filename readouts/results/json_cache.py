"""Values that take a while to compute, kept as JSON beside the results under all that decides them."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from featcache.system.files import keep, read_regular
from featcache.system.sealed import json_sealed, json_unsealed

LARGEST = 2**28
"""Bytes; pictures of tokens are the largest values, some hundred kB a store."""


class JsonCache:
    """One file of values, each under a digest of what decides it, sealed as a whole.

    A file that cannot be read or is not what was written is as good as none, and so is a value whose digest
    changed: both are computed anew. One that cannot be kept is computed again next time.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._values: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            values, sealed = json_unsealed(read_regular(file, limit=LARGEST))
            # Without a seal it is of an older version, or was damaged where the seal is.
            self._values = values if sealed else {}
        self._n_read = len(self._values)

    def value(self, about: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """The value that was kept under `about`, or else the one that `compute` gives, which JSON can hold.

        Args:
            about: everything that decides the value, a version of the code among it.
            compute: called where nothing was kept; what it raises passes through.
        """
        key = blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8).hexdigest()
        if key not in self._values:
            self._values[key] = compute()
        return self._values[key]

    def keep(self) -> None:
        """Write the file, if anything is new."""
        if len(self._values) > self._n_read:
            content = json_sealed(self._values, sort_keys=False, allow_nan=True)
            keep(self._file, content, what="what took a while to compute")
