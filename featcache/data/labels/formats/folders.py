"""A folder a class, `folder/train/<class>/x.mp4` or `folder/<class>/x.mp4`: a video's label is its folder.

The layout of Hugging Face's VideoFolder. Names of splits are train, val and test and what people write for
them.
"""

from pathlib import Path, PurePosixPath

from featcache.data.labels.base import Annotations, Choices
from featcache.data.labels.drafts import Drafts
from featcache.data.labels.videos import Videos
from featcache.errors import DataError, few

SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""What a folder or file of a split is called -> the split."""


def recognises(path: Path, head: str) -> bool:
    """By being a folder."""
    del head
    return path.is_dir()


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`; `path` is the folder that holds splits or classes."""
    del choices
    drafts, classes = Drafts(path, videos), set[str]()
    for source, name, split in _placed(path, videos):
        classes.add(name)
        draft = drafts.of(source, source, split=split)
        if draft is not None:
            draft.add_frames(source, name, 0, draft.video.n_frames)
    if not classes:
        raise DataError(
            f"{path} has no folder a class: put videos into folder/<class>/ or folder/train/<class>/, or "
            "give "
            "a label file with --labels."
        )
    for folder in sorted(entry for entry in path.rglob("*") if entry.is_dir()):
        below = PurePosixPath(folder.relative_to(path).as_posix())
        is_class = len(below.parts) == 2 if below.parts[0].casefold() in SPLITS else len(below.parts) == 1
        if is_class and below.name not in classes and below.name.casefold() not in SPLITS:
            drafts.remarks.add(
                "empty_class", below.as_posix(), "a class's folder without a video: it is no class."
            )
    _say_others(path, videos, drafts)
    return drafts.annotations("folders", sorted(classes))


def _placed(path: Path, videos: Videos) -> list[tuple[str, str, str | None]]:
    """Path, class and split of each video in a folder of a class."""
    placed = list[tuple[str, str, str | None]]()
    for video in videos:
        try:
            parts = (videos.folder / video.source).relative_to(path).parts
        except ValueError:
            continue
        split = SPLITS.get(parts[0].casefold()) if len(parts) > 2 else None
        if len(parts) - (split is not None) >= 2:
            placed.append((video.source, parts[1 if split is not None else 0], split))
    return placed


def _say_others(path: Path, videos: Videos, drafts: Drafts) -> None:
    inside = path.resolve()
    junk = [other for other in videos.others if (videos.folder / other).resolve().is_relative_to(inside)]
    junk = [other for other in junk if not PurePosixPath(other).name.startswith(".")]
    if junk:
        drafts.remarks.add("not_video", "", f"no videos by their names, left out: {few(junk)}.")
    for source, why in videos.broken:
        if (videos.folder / source).resolve().is_relative_to(inside):
            drafts.remarks.add("not_video", source, f"has a video's ending and cannot be read ({why}).")
