"""Lists `path label`, a line a video: as V-JEPA's evaluations and the Kinetics lists before them have it.

The last space, comma or tab of a line separates, so that a path may hold spaces; labels are numbers. The
file's name tells the split.
"""

import re
from pathlib import Path

from featcache.data.labels.base import Annotations, Choices
from featcache.data.labels.drafts import Drafts
from featcache.data.labels.formats.folders import SPLITS
from featcache.data.labels.tables import read_text
from featcache.data.labels.videos import ENDINGS, Videos
from featcache.errors import DataError

_LINE = re.compile(r"^\s*(\S.*?)[ \t,;]+(\d{1,6})\s*$")
_MOVIE = re.compile(rf"({'|'.join(re.escape(end) for end in sorted(ENDINGS))})$", re.IGNORECASE)


def recognises(path: Path, head: str) -> bool:
    """By a first line of a video's path and a number."""
    first = next((line for line in head.splitlines() if line.strip()), "")
    match = _LINE.match(first)
    return path.suffix.lower() in (".csv", ".txt", ".list") and bool(
        match and _MOVIE.search(match[1].strip("\"'"))
    )


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`."""
    del choices
    text, _ = read_text(path)
    drafts, classes = Drafts(path, videos), set[int]()
    stem = re.split(r"[_.-]", path.stem.casefold())
    split = next((SPLITS[word] for word in stem if word in SPLITS), None)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    matches = [(number, line, _LINE.match(line)) for number, line in lines]
    drafts.expect(match[1].strip("\"'") for _, _, match in matches if match)
    for number, line, match in matches:
        if match is None:
            raise DataError(
                f"{path}, row {number}: {line[:80]!r} is not a path, a space and a number: correct it."
            )
        name, label = match[1].strip("\"'"), int(match[2])
        classes.add(label)
        where = f"row {number}"
        if re.match(r"/|[A-Za-z]:[\\/]", name):
            drafts.remarks.add("other_path", where, f"{name!r} is a path of another machine.")
        draft = drafts.of(name, where, split=split)
        if draft is None:
            continue
        labels = {bout.label for bout in draft.bouts}
        if labels and str(label) not in labels:
            drafts.remarks.add(
                "bad_value", where, f"{name!r} has another label in a row before ({labels.pop()}): keep one."
            )
        elif not labels:
            draft.add_frames(where, str(label), 0, draft.video.n_frames)
    drafts.remarks.add("numbers", "", "classes are numbers: give them their names in the manifest.")
    return drafts.annotations("lists", [str(label) for label in sorted(classes)])
