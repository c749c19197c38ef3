"""Projects of BORIS, `.boris`: one JSON file with the ethogram, the observations and their events.

An event is [time, subject, code, modifiers, comment, frame]. No event says whether it starts or stops: of a
state the 1st, 3rd, ... event of a subject, code and set of modifiers starts it, the 2nd, 4th, ... stops it.
The number of the frame follows the project's rate and may be another one than the video's: times count.
Source: https://www.boris.unito.it, project format 7.0; programs 7.9.8 to 10.0.2 were run. They round times to
milliseconds when they open a project, and open it in the machine's own encoding.
"""

import gzip
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from json import JSONDecodeError, dumps, loads
from math import floor
from pathlib import Path
from typing import Any

from featcache.data.labels.base import Annotations, Bout, Choices, VideoLabels
from featcache.data.labels.drafts import Drafts
from featcache.data.labels.formats import MARKS
from featcache.data.labels.formats.timeline import Event, Media, Observation, place
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.timing import parse_number, shown
from featcache.data.labels.videos import Videos
from featcache.errors import DataError, few
from featcache.system.files import read_regular

MOST_BYTES = 2**28


def recognises(path: Path, head: str) -> bool:
    """By its ending, or its first keys."""
    return path.name.lower().endswith((".boris", ".boris.gz")) or "project_format_version" in head


def read(path: Path, videos: Videos, choices: Choices) -> Annotations:
    """See `Importer.read`."""
    project = _project(path)
    kinds = {
        str(behaviour["code"]): str(behaviour.get("type", "")).lower()
        for behaviour in project["behaviors_conf"].values()
    }
    drafts = Drafts(path, videos)
    observations = list[Observation]()
    for name, entry in project["observations"].items():
        media = _media(name, entry, drafts.remarks)
        if media is not None:
            observations.append(_observation(name, entry, media, kinds, drafts.remarks))
    if choices.observations and not set(choices.observations) & {o.name for o in observations}:
        drafts.remarks.add(
            "observers",
            "",
            f"no observation is called {few(choices.observations)}: there are "
            f"{few([o.name for o in observations], 20)}.",
        )
    place(observations, drafts, choices)
    return drafts.annotations("boris", list(kinds))


def write(labels: Sequence[VideoLabels], classes: Sequence[str]) -> bytes:
    """See `Writer.write`; a video is an observation of its own, its name the video's."""
    subjects = sorted({bout.subject for of_video in labels for bout in of_video.bouts if bout.subject})
    project = {
        "time_format": "hh:mm:ss",
        "project_date": _DATE,
        "project_name": MARKS["boris"],
        "project_description": "",
        "project_format_version": "7.0",
        "subjects_conf": {
            str(i): {"key": "", "name": name, "description": ""} for i, name in enumerate(subjects)
        },
        "behaviors_conf": {str(i): _behaviour(name) for i, name in enumerate(classes)},
        "observations": {of_video.video.source: _written(of_video, classes) for of_video in labels},
        "behavioral_categories": [],
        "behavioral_categories_config": {},
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    return dumps(project, indent=1).encode()


_DATE = "2000-01-01T00:00:00.000"
"""The same always: the same bouts are the same bytes."""


def _behaviour(code: str) -> dict[str, Any]:
    return {
        "type": "State event", "key": "", "code": code, "description": "", "color": "", "category": "",
        "modifiers": {}, "excluded": "", "coding map": "",
    }  # fmt: skip


def _written(labels: VideoLabels, classes: Sequence[str]) -> dict[str, Any]:
    """An observation of a video, two events a bout."""
    video, events = labels.video, list[tuple[Fraction, bool, Bout, int]]()
    for bout in labels.bouts:
        if bout.label in classes:
            events += [(at / video.rate, at == bout.first, bout, at) for at in (bout.first, bout.stop)]
    # At one time what stops comes before what starts.
    events.sort(key=lambda event: event[:2])
    length = float(video.seconds)
    return {
        "file": {"1": [video.source], **{str(player): [] for player in range(2, 9)}},
        "type": "MEDIA",
        "date": _DATE,
        "description": "",
        "time offset": 0.0,
        "events": [
            [_in_milliseconds(time), bout.subject, bout.label, "|".join(bout.modifiers), "", frame]
            for time, _, bout, frame in events
        ],
        "observation time interval": [0, 0],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "media_scan_sampling_duration": 0,
        "image_display_duration": 1,
        "close_behaviors_between_videos": False,
        "media_info": {
            "length": {video.source: length},
            "fps": {video.source: float(video.rate)},
            "hasVideo": {video.source: True},
            "hasAudio": {video.source: False},
            "offset": {"1": 0.0},
        },
    }


def _in_milliseconds(time: Fraction) -> float:
    """A frame's time cut down to what the program keeps: rounded up it would be of the next frame."""
    return float(floor(time * 1000) / Fraction(1000))


def _project(path: Path) -> Mapping[str, Any]:
    try:
        content = read_regular(path, limit=MOST_BYTES)
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        project = loads(content.decode("utf-8-sig"), parse_float=Decimal)
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror or problem}): copy it again.") from None
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise DataError(
            f"{path} is no BORIS project ({problem}): copy it again, or save it in BORIS."
        ) from None
    parts = ("behaviors_conf", "observations")
    if not (isinstance(project, dict) and all(isinstance(project.get(part), dict) for part in parts)):
        raise DataError(f"{path} is no BORIS project: it lacks {' or '.join(parts)}. Save it in BORIS again.")
    return project


def _media(name: str, entry: Mapping[str, Any], remarks: Remarks) -> tuple[Media, ...] | None:
    """The files of the first player; None of what was not coded from videos."""
    players = entry.get("file")
    kind = str(entry.get("type", "MEDIA"))
    if isinstance(players, list):
        # Before format 2: a file a player.
        players = {str(number): [file] for number, file in enumerate(players, 1)}
    if (
        kind.upper() not in ("MEDIA", "VIDEO", "AUDIO")
        or not isinstance(players, dict)
        or not any(players.values())
    ):
        remarks.add("live", name, f"of type {kind} without a video: left out.")
        return None
    used = [number for number, files in sorted(players.items()) if files]
    if len(used) > 1:
        others = few([file for number in used[1:] for file in players[number]])
        remarks.add(
            "views",
            name,
            f"player {used[0]} is taken; others show the same time from another side: {others}.",
        )
    info = entry.get("media_info") or {}
    lengths, rates = info.get("length") or {}, info.get("fps") or {}
    filmed = info.get("media_creation_time") or {} if entry.get("media_creation_date_as_offset") else {}
    return tuple(
        Media(
            name=file,
            seconds=_positive(lengths.get(file)),
            rate=_positive(rates.get(file)),
            filmed=parse_number(filmed.get(file)),
        )
        for file in players[used[0]]
    )


def _positive(value: Any) -> Fraction | None:
    number = parse_number(value)
    return number if number is not None and number > 0 else None


def _observation(
    name: str, entry: Mapping[str, Any], media: tuple[Media, ...], kinds: Mapping[str, str], remarks: Remarks
) -> Observation:
    bounds = [parse_number(time) or Fraction(0) for time in entry.get("observation time interval") or (0, 0)]
    return Observation(
        name=name,
        media=media,
        events=_events(name, entry.get("events") or [], kinds, remarks),
        offset=parse_number(entry.get("time offset", 0)) or Fraction(0),
        interval=(bounds[0], bounds[1]) if len(bounds) == 2 and bounds[1] > bounds[0] else None,
    )


def _events(
    name: str, entries: list[list[Any]], kinds: Mapping[str, str], remarks: Remarks
) -> tuple[Event, ...]:
    """States closed by their next event, and points."""
    timed = [(parse_number(entry[0]), number, entry) for number, entry in enumerate(entries, 1)]
    for _, number, entry in (row for row in timed if row[0] is None):
        remarks.add("no_time", f"{name}, event {number}", f"{entry[0]!r} is no time: correct it in BORIS.")
    events, open_states = list[Event](), dict[tuple[str, str, str], Event]()
    in_order = sorted((time, number, entry) for time, number, entry in timed if time is not None)
    for time, number, entry in in_order:
        subject, code, modifiers, comment = (str(part or "") for part in (*entry[1:5], "", "")[:4])
        where = f"{name}, event {number}"
        event = Event(
            where=where,
            label=code,
            start=time,
            subject=subject,
            modifiers=modifiers_of(modifiers),
            comment=comment,
        )
        if "point" in kinds.get(code, ""):
            events.append(_closed(event, None, is_point=True))
        elif "state" not in kinds.get(code, ""):
            remarks.add(
                "unknown_class",
                where,
                f"{code!r} at {shown(time)} s is no behaviour of the ethogram, and may be a state or a "
                "point: "
                f"add it there. It has {few(kinds, 20)}.",
            )
        elif (started := open_states.pop((subject, code, modifiers), None)) is not None:
            events.append(_closed(started, time, comment=comment))
        else:
            open_states[subject, code, modifiers] = event
    return (*events, *open_states.values())


def _closed(event: Event, stop: Fraction | None, *, is_point: bool = False, comment: str = "") -> Event:
    return Event(
        where=event.where,
        label=event.label,
        start=event.start,
        stop=stop,
        is_point=is_point,
        subject=event.subject,
        modifiers=event.modifiers,
        comment=comment or event.comment,
    )


def modifiers_of(text: str) -> tuple[str, ...]:
    """The modifiers of `head|left`, with nothing for one that was left open, as in `tail|None`."""
    return tuple("" if part in ("None", "") else part for part in text.split("|")) if text else ()
