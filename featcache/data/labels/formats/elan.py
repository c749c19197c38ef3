"""Annotations of ELAN: the document `.eaf`, and its export as text between tabs, with or without a heading.

A tier may be a person, a kind of behaviour, or a comment: no file tells, so that the tiers that hold labels
are chosen. Times are whole milliseconds of the medium. Source: EAF 2.8 as pympi-ling 1.71 writes it, and
3.0.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from featcache.data.labels.base import Annotations, Choices
from featcache.data.labels.drafts import Draft, Drafts
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.tables import read_rows
from featcache.data.labels.timing import parse_number, parse_time
from featcache.data.labels.videos import Videos
from featcache.errors import DataError, few
from featcache.system.files import read_regular

MOST_BYTES = 2**28
_UNIT = "milliseconds"


@dataclass(frozen=True, slots=True)
class _Annotation:
    where: str
    tier: str
    start: Fraction
    stop: Fraction
    value: str


def recognises(path: Path, head: str) -> bool:
    """By its ending, its root, or rows of a tier, two times and what is between them."""
    if path.suffix.lower() == ".eaf" or "<ANNOTATION_DOCUMENT" in head:
        return True
    lines = [line for line in head.splitlines() if line.strip()][:3]
    return (
        path.suffix.lower() in (".txt", ".tsv", ".csv")
        and bool(lines)
        and _places(lines[-1].split("\t")) is not None
    )


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`."""
    drafts = Drafts(path, videos)
    is_document = path.suffix.lower() == ".eaf"
    found, media = _document(path, drafts.remarks) if is_document else (_text(path), [])
    draft = _video(path, media, drafts, videos, choices)
    tiers = list(dict.fromkeys(annotation.tier for annotation in found))
    chosen = _tiers(found, tiers, drafts.remarks, choices)
    if draft is not None and not chosen:
        draft.add_unknown(0, draft.video.n_frames, "no tier was chosen")
    labels = dict[str, None]()
    for annotation in found:
        if annotation.tier not in chosen:
            continue
        as_class = choices.tier_is == "class"
        label, subject = (annotation.tier, "") if as_class else (annotation.value, annotation.tier)
        if not label:
            drafts.remarks.add("empty_label", annotation.where, "no value: left out.")
        elif draft is not None:
            labels[label] = None
            draft.add_seconds(annotation.where, label, annotation.start, annotation.stop, subject=subject)
    return drafts.annotations("elan", sorted(labels))


def _document(path: Path, remarks: Remarks) -> tuple[list[_Annotation], list[str]]:
    try:
        content = read_regular(path, limit=MOST_BYTES)
        if b"<!ENTITY" in content:
            raise DataError(f"{path} declares entities, which ELAN does not: export it again.")
        root = ElementTree.fromstring(content)
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror}): copy it again.") from None
    except ElementTree.ParseError as problem:
        raise DataError(f"{path} is no ELAN document ({problem}): copy it again.") from None
    header = root.find("HEADER")
    if header is not None and (unit := header.get("TIME_UNITS", _UNIT)) != _UNIT:
        raise DataError(f"{path} counts in {unit}, and only {_UNIT} are read: save it in ELAN.")
    slots = {
        slot.get("TIME_SLOT_ID", ""): parse_number(slot.get("TIME_VALUE"))
        for slot in root.iterfind("TIME_ORDER/TIME_SLOT")
    }
    media = list[str]()
    origin = Fraction(0)
    for medium in root.iterfind("HEADER/MEDIA_DESCRIPTOR"):
        if medium.get("MIME_TYPE", "video").startswith("video") or not media:
            media += [unquote(url) for key in ("RELATIVE_MEDIA_URL", "MEDIA_URL") if (url := medium.get(key))]
            origin = origin or (parse_number(medium.get("TIME_ORIGIN", 0)) or Fraction(0))
    if origin:
        remarks.add(
            "offset", "", f"the medium starts {int(origin)} ms before the annotations: added to times."
        )
    return _of_tiers(root, slots, origin, remarks), media


def _of_tiers(
    root: ElementTree.Element, slots: Mapping[str, Fraction | None], origin: Fraction, remarks: Remarks
) -> list[_Annotation]:
    """All annotations; one that refers to another has its time."""
    times, found = dict[str, tuple[Fraction, Fraction]](), list[_Annotation]()
    refers = list[tuple[str, ElementTree.Element]]()
    for tier in root.iterfind("TIER"):
        name = tier.get("TIER_ID", "")
        for entry in tier.iterfind("ANNOTATION/ALIGNABLE_ANNOTATION"):
            mark, value = entry.get("ANNOTATION_ID", ""), (entry.findtext("ANNOTATION_VALUE") or "").strip()
            start, stop = (slots.get(entry.get(f"TIME_SLOT_REF{end}", "")) for end in (1, 2))
            if start is None or stop is None:
                remarks.add("no_time", f"{name}, {mark}", f"{value!r} has no time: align it in ELAN.")
                continue
            times[mark] = ((start + origin) / 1000, (stop + origin) / 1000)
            found.append(_Annotation(f"{name}, {mark}", name, *times[mark], value))
        refers += [(name, entry) for entry in tier.iterfind("ANNOTATION/REF_ANNOTATION")]
    for _ in range(len(refers)):
        waiting = [(name, entry) for name, entry in refers if entry.get("ANNOTATION_REF", "") not in times]
        for name, entry in refers:
            parent, mark = entry.get("ANNOTATION_REF", ""), entry.get("ANNOTATION_ID", "")
            if parent in times:
                times[mark] = times[parent]
                value = (entry.findtext("ANNOTATION_VALUE") or "").strip()
                found.append(_Annotation(f"{name}, {mark}", name, *times[mark], value))
        if not waiting or len(waiting) == len(refers):
            break
        refers = waiting
    return found


def _text(path: Path) -> list[_Annotation]:
    rows, _ = read_rows(path, separator="\t")
    found = list[_Annotation]()
    for number, cells in rows:
        places = _places(cells)
        if places is None:
            if number == rows[0][0]:
                continue
            raise DataError(
                f"{path}, row {number}: no tier, begin, end, duration and value: export it from ELAN again."
            )
        begin, end, value = places
        start, stop = _seconds(cells[begin]), _seconds(cells[end])
        if start is not None and stop is not None:
            found.append(_Annotation(f"row {number}", cells[0], start, stop, cells[value]))
    return found


def _seconds(cell: str) -> Fraction | None:
    """A time of an export: whole numbers are milliseconds, seconds and clock times have a point."""
    time = parse_time(cell)
    return time if time is None or re.search(r"[.:]", cell) else time / 1000


def _places(cells: Sequence[str]) -> tuple[int, int, int] | None:
    """Columns of begin, end and value: two times, and, somewhere, what is between them."""
    times = {n: time for n, cell in enumerate(cells) if n and (time := _seconds(cell.strip())) is not None}
    for begin, start in times.items():
        for end, stop in times.items():
            if (
                begin < end
                and start < stop
                and any(n not in (begin, end) and t == stop - start for n, t in times.items())
            ):
                rest = [n for n in range(1, len(cells)) if n not in times and cells[n].strip()]
                behind = [n for n in rest if n > end]
                return begin, end, (behind or rest or [len(cells) - 1])[-1]
    return None


def _video(
    path: Path, media: Sequence[str], drafts: Drafts, videos: Videos, choices: Choices
) -> Draft | None:
    if choices.video or media:
        names = [choices.video] if choices.video else list(media)
        found = [n for n in names if videos.find(n, beside=videos.beside(path)).how == "same"]
        draft = drafts.of((found or names)[0])
        foreign = [name for name in names if re.match(r"(file:)?/|[A-Za-z]:", name) and name not in found]
        if draft is not None and foreign:
            drafts.remarks.add(
                "other_path",
                "",
                f"{few(foreign)} is a path of another machine: {draft.video.source} is taken.",
            )
        return draft
    near = [v for v in videos if path.stem.casefold().startswith(Path(v.source).stem.casefold())]
    if near:
        best = max(near, key=lambda video: len(Path(video.source).stem))
        drafts.remarks.add("guessed_video", "", f"it names no video: {best.source} is taken, by its name.")
        return drafts.of_video(best)
    drafts.remarks.add("which_video", "", "it names no video: say --video NAME.")
    return None


def _tiers(
    found: Sequence[_Annotation], tiers: Sequence[str], remarks: Remarks, choices: Choices
) -> Sequence[str]:
    chosen = [tier for tier in choices.tiers if tier in tiers]
    described = []
    for tier in tiers:
        values = [annotation.value for annotation in found if annotation.tier == tier]
        described.append(f"{tier!r} ({len(values)}: {few(dict.fromkeys(values), 3)})")
        if chosen and tier not in chosen:
            remarks.add("tier_left", tier, f"{len(values)} annotations of it are left out, as chosen.")
    if not chosen:
        remarks.add(
            "tiers",
            "",
            f"a tier may be somebody, a kind of behaviour, or a comment: {', '.join(described)}. Say "
            "which hold "
            f"labels, as --tier {tiers[0] if tiers else 'NAME'}, and --tier-is class where a tier's name "
            "is the "
            "label.",
        )
    return chosen
