"""What was used last, kept for the next use: open files, decoded fields."""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(slots=True)
class _Kept(Generic[Key, Value]):
    """Values of one process, least recently used first."""

    lock: Lock = field(default_factory=Lock)
    values: OrderedDict[Key, Future[Value]] = field(default_factory=OrderedDict)


class Recent(Generic[Key, Value]):
    """The `capacity` values that were used last, for any threads; one that they share is made once.

    A value that is dropped lives on with the threads that still use it.
    """

    def __init__(self, make: Callable[[Key], Value], *, capacity: int) -> None:
        self._make, self._capacity = make, capacity
        # A forked child begins anew: what a thread of the parent had begun is never finished there, and open
        # readers do not survive. Those of the parent are left alone, not closed.
        self._of_process: dict[int, _Kept[Key, Value]] = {}

    def get(self, key: Key) -> Value:
        """The value of `key`, made if it is not kept; raises what making it raises."""
        kept = self._of_process.setdefault(os.getpid(), _Kept())
        with kept.lock:
            mine = key not in kept.values
            value = kept.values.setdefault(key, Future())
            kept.values.move_to_end(key)
            if len(kept.values) > self._capacity:
                kept.values.popitem(last=False)
        if mine:
            try:
                value.set_result(self._make(key))
            except BaseException as problem:
                self.forget(key)
                value.set_exception(problem)
        return value.result()

    def forget(self, key: Key) -> None:
        """Make the value of `key` anew when it is asked for next."""
        kept = self._of_process[os.getpid()]
        with kept.lock:
            kept.values.pop(key, None)
