"""Temporal segments of VIA 3, the VGG annotator for video: its project, `.json`, and its export, `.csv`.

A label is the number of an option of an attribute; attributes stand in the project, and in lines of the CSV
file that begin with #. A segment has two times, a still frame one. Source: VIA 3's documented forms.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any

from featcache.data.labels.base import Annotations, Choices
from featcache.data.labels.drafts import Draft, Drafts
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.tables import read_text
from featcache.data.labels.timing import parse_number
from featcache.data.labels.videos import Videos
from featcache.errors import DataError, few

_COLUMNS = "metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata"
_TEXT, _CHECKBOX = 1, 2
"""Types of attributes whose value is a label itself, or several options."""


@dataclass(frozen=True, slots=True)
class _Segment:
    where: str
    files: list[str]
    times: list[Any]
    values: Mapping[str, Any]


def recognises(path: Path, head: str) -> bool:
    """By a project's keys, or the heading of an export."""
    is_project = '"attribute"' in head and '"vid_list"' in head
    return is_project or "# CSV_HEADER" in head or ("# ATTRIBUTE" in head and path.suffix.lower() == ".csv")


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`."""
    del choices
    text, _ = read_text(path)
    try:
        attributes, segments = _project(text) if path.suffix.lower() == ".json" else _export(text)
    except (JSONDecodeError, csv.Error, KeyError, TypeError, ValueError, AttributeError) as problem:
        raise DataError(f"{path} is no project or export of VIA 3 ({problem!r}): export it again.") from None
    drafts = Drafts(path, videos)
    drafts.expect(segment.files[0] for segment in segments if segment.files)
    for segment in segments:
        if len(segment.files) > 1:
            drafts.remarks.add(
                "views", segment.where, f"{segment.files[0]} is taken, {few(segment.files[1:])} left out."
            )
        draft = drafts.of(segment.files[0], segment.where) if segment.files else None
        if draft is not None:
            for label in _labels(segment, attributes, drafts.remarks):
                _place(segment, label, draft)
    classes = [
        _name(attribute, option, attributes)
        for attribute in attributes.values()
        for option in (attribute.get("options") or {}).values()
        if attribute.get("type") != _TEXT
    ]
    return drafts.annotations("via", classes)


def _project(text: str) -> tuple[dict[str, Any], list[_Segment]]:
    project = loads(text)
    files = {key: str(file["fname"]) for key, file in project["file"].items()}
    views = {key: [files[str(fid)] for fid in view["fid_list"]] for key, view in project["view"].items()}
    return project["attribute"], [
        _Segment(f"segment {key}", views[str(entry["vid"])], list(entry["z"]), entry["av"])
        for key, entry in project["metadata"].items()
    ]


def _export(text: str) -> tuple[dict[str, Any], list[_Segment]]:
    lines = text.splitlines()
    attributes = dict[str, Any]()
    header = _COLUMNS
    for line in lines:
        key, equals, value = line.lstrip("# ").partition("=")
        if line.startswith("#") and equals:
            if key.strip() == "ATTRIBUTE":
                attributes = loads(value)
            elif key.strip() == "CSV_HEADER":
                header = value.strip()
    names, segments = header.split(","), list[_Segment]()
    data = ((n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#"))
    for number, line in data:
        cells = dict(zip(names, next(csv.reader([line])), strict=True))
        segments.append(
            _Segment(
                f"row {number}",
                [str(name) for name in loads(cells["file_list"])],
                list(loads(cells["temporal_coordinates"])),
                loads(cells["metadata"]),
            )
        )
    return attributes, segments


def _labels(segment: _Segment, attributes: Mapping[str, Any], remarks: Remarks) -> Iterator[str]:
    for number, value in segment.values.items():
        attribute = attributes.get(number, {})
        options = attribute.get("options") or {}
        kind = attribute.get("type")
        parts = str(value).split(",") if kind == _CHECKBOX else [str(value)]
        for part in (part.strip() for part in parts):
            if kind == _TEXT or (part in options and part):
                name = part if kind == _TEXT else str(options[part])
                if name:
                    yield _name(attribute, name, attributes)
            elif part:
                known = few([f"{key} ({name})" for key, name in options.items()], 20)
                remarks.add(
                    "unknown_class",
                    segment.where,
                    f"{part!r} is no option of {attribute.get('aname', number)!r}: there are "
                    f"{known or 'none'}.",
                )
    if not any(str(value).strip() for value in segment.values.values()):
        remarks.add("empty_label", segment.where, "no label: left out.")


def _name(attribute: Mapping[str, Any], option: Any, attributes: Mapping[str, Any]) -> str:
    """The option, behind its attribute's name where another one has the same."""
    twice = sum(option in (other.get("options") or {}).values() for other in attributes.values()) > 1
    return f"{attribute.get('aname')} {option}" if twice else str(option)


def _place(segment: _Segment, label: str, draft: Draft) -> None:
    times = [parse_number(time) for time in segment.times]
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        draft.remarks.add("no_time", segment.where, f"{segment.times!r} are no times: correct them.")
    elif not known:
        draft.add_frames(segment.where, label, 0, draft.video.n_frames)
    elif len(known) == 1:
        draft.remarks.add(
            "zero_length",
            segment.where,
            f"{label!r} has one time only ({float(known[0])} s), as a still frame: kept as a point.",
        )
        draft.add_point(segment.where, label, known[0])
    else:
        draft.add_seconds(segment.where, label, known[0], known[-1])
