from collections.abc import Callable
from pathlib import Path

import pytest

from tests.featcache.data.readers.video.small_videos import write_video


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of a small video of one of `KINDS`, written once."""
    folder = tmp_path_factory.mktemp("videos")

    def video(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_video(path)

    return video
