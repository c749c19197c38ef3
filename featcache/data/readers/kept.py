"""Things that are dear to make and used again soon: a few of them kept, the least recently used let go."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """What `make` gives for the last `capacity` keys; one that threads ask for together is made once."""

    def __init__(self, make: Callable[[Key], Value], *, capacity: int) -> None:
        self._make, self._capacity, self._lock = make, capacity, Lock()
        self._kept: OrderedDict[Key, Future[Value]] = OrderedDict()

    def get(self, key: Key) -> Value:
        """The value of a key; raises what `make` raises, and then does not keep it."""
        with self._lock:
            mine = key not in self._kept
            value = self._kept.setdefault(key, Future())
            self._kept.move_to_end(key)
            # Another thread may still use the one that goes: it lives until the last of them is done.
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        if mine:
            try:
                value.set_result(self._make(key))
            except BaseException as problem:
                self.forget(key)
                value.set_exception(problem)
        return value.result()

    def forget(self, key: Key) -> None:
        """Make the value anew when it is asked for again."""
        with self._lock:
            self._kept.pop(key, None)
