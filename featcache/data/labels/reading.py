"""From files and folders of labels to what they say together."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from featcache.data.labels.base import Annotations, Choices, Importer
from featcache.data.labels.checks import checked
from featcache.data.labels.combining import combined
from featcache.data.labels.formats import IMPORTERS, MARKS
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.videos import ENDINGS, Videos
from featcache.data.readers.video.table_text import SAID
from featcache.errors import DataError, ScividError
from featcache.system.files import open_regular

_HEAD = 4096
"""Bytes of a file that tell its format."""
_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


def read_labels(paths: Sequence[Path], videos: Videos, choices: Choices | None = None) -> Annotations:
    """What label files say of the videos, with all that has to be said, asked or refused.

    Of a folder all files of a known format are read, but for predictions; where it has none, its folders are
    classes.

    Args:
        paths: files and folders.
        videos: the videos at hand.
        choices: what the user decided.

    Raises:
        DataError: a file is of no known format, or cannot be read as its own; names it.
    """
    choices = choices or Choices()
    found = list[Annotations]()
    for path in paths:
        files = label_files(path)
        has_project = "boris" in {form for _, form in files}
        for file, form in files:
            try:
                found.append(read_one(form, file, videos, choices))
            except DataError as problem:
                if len(files) == 1:
                    raise
                needless = has_project and form == "boris_tables"
                remarks = Remarks(file)
                remarks.add("left_out" if needless else "unreadable", "", str(problem))
                found.append(Annotations(format=form, classes=(), videos=(), remarks=remarks.all))
    return checked(combined(found), videos)


def read_one(form: str, path: Path, videos: Videos, choices: Choices) -> Annotations:
    """What one file of a known format says.

    Raises:
        DataError: it cannot be read as this format, or is not of the shape that the format has.
    """
    try:
        return importer(form).read(path, videos, choices)
    except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError) as problem:
        if isinstance(problem, ScividError):
            raise
        # Anything may stand anywhere in a file that was changed by hand; --debug shows where it was read.
        raise DataError(
            f"{path} is not of the shape that {form} has ({type(problem).__name__}: {problem}): export it "
            "again."
        ) from problem


def importer(form: str) -> Importer:
    """The member of the family that is called `form`."""
    return cast(Importer, import_module(IMPORTERS[form]))


def format_of(path: Path) -> str | None:
    """The format of a file, by its name and first characters; None of none that is known."""
    if path.is_dir():
        return "folders"
    head = head_of(path)
    return next((form for form in IMPORTERS if importer(form).recognises(path, head)), None)


def label_files(path: Path) -> list[tuple[Path, str]]:
    """The files that are read for a path, each with its format; a folder without any is `folders` itself.

    Raises:
        DataError: there is no such path, or it is a file of no known format.
    """
    if not path.exists():
        raise DataError(f"there is no {path}: give a label file, or a folder of them.")
    if not path.is_dir():
        form = format_of(path)
        if form is None:
            raise DataError(
                f"{path} is of no format that is known: there are {', '.join(IMPORTERS)}. A table of "
                "bouts has "
                "columns video, start, stop and label."
            )
        return [(path, form)]
    known = [
        (entry, form)
        for entry in files_below(path)
        if not is_prediction(entry) and (form := format_of(entry)) is not None
    ]
    return known or [(path, "folders")]


def predictions_below(folder: Path) -> list[Path]:
    """Files in a folder that say what a readout took for true: no labels until somebody looked at them."""
    return [entry for entry in files_below(folder) if is_prediction(entry)]


def files_below(folder: Path) -> Iterator[Path]:
    """Files that are neither hidden nor videos, in order."""
    for entry in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in entry.relative_to(folder).parts)
        if entry.is_file() and entry.suffix.lower() not in ENDINGS and not hidden:
            yield entry


def is_prediction(path: Path) -> bool:
    """Whether `scivid predict` wrote a file, or somebody saved again what it wrote."""
    # What is written beside a table of frames.
    beside = (path.with_name(f"{path.stem}_{what}.csv") for what in ("bouts", "summary"))
    heads = [head_of(file) for file in (path, *beside) if file.is_file()]
    return any(mark in head for head in heads for mark in MARKS.values())


def head_of(path: Path) -> str:
    """The first characters of a file, which tell its format; raises DataError where it cannot be read."""
    try:
        with open(path, "rb", opener=open_regular) as file:
            content = file.read(_HEAD)
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror}): give a label file.") from None
    head = content.decode(_MARKS.get(content[:2], "utf-8-sig"), errors="replace").lstrip("\ufeff")
    return SAID.sub("", head, count=1) if SAID.match(head) else head
