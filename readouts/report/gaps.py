"""What of a page could not be made, and why: a damaged file costs its own part of a page and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image

from featcache.errors import ScividError
from featcache.store.feature_store import FeatureStore


class Gaps:
    """The messages of what is missing on a page, or in a part of it; each once."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def add(self, message: str) -> None:
        """Say that something is missing, and why."""
        if message not in self.messages:
            self.messages.append(message)

    @contextmanager
    def around(self, what: str) -> Iterator[None]:
        """Whatever goes wrong in the block ends it, and is said.

        Args:
            what: the block makes, for messages that do not say it themselves.
        """
        try:
            yield
        except ScividError as problem:
            self.add(str(problem))
        except Exception as problem:
            self.add(f"{what}: {type(problem).__name__}: {problem}")


def pictures_of(store: FeatureStore, gaps: Gaps) -> dict[int, bytes]:
    """Clip number -> JPEG strip, of the clips that a store keeps one of; what is no picture is said."""
    found = {}
    with gaps.around(f"previews of {store.path}"):
        for clip, strip in store.previews().items():
            with gaps.around(f"preview of clip {clip} of {store.path}"):
                Image.open(BytesIO(strip)).load()
                found[clip] = strip
    return found
