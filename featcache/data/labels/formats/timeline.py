"""An observation of BORIS, from its project or one of its tables, put on the videos it was coded from.

Times of an observation run over all files of its first player, one after the other, and hold its time offset.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from featcache.data.labels.base import Choices
from featcache.data.labels.drafts import Draft, Drafts
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.timing import frame_at, shown
from featcache.errors import few

_REPAIRED = "automatically added"
"""In the comment of a stop that BORIS's repair of unpaired states wrote."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """A file of an observation."""

    name: str
    seconds: Fraction | None = None
    rate: Fraction | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A state with its stop, a state that was never closed, or a point: times as the file has them."""

    where: str
    label: str
    start: Fraction
    stop: Fraction | None = None
    """None of a point, and of a state that was never closed."""
    is_point: bool = False
    subject: str = ""
    modifiers: tuple[str, ...] = ()
    comment: str = ""

    @property
    def modified(self) -> str:
        """The label with its modifiers, `groom (head, left)`; the label alone where there is none."""
        n_said = max((n for n, part in enumerate(self.modifiers, 1) if part), default=0)
        parts = ", ".join(part or "-" for part in self.modifiers[:n_said])
        return f"{self.label} ({parts})" if n_said else self.label


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What one observer coded in one go."""

    name: str
    media: tuple[Media, ...]
    events: tuple[Event, ...]
    offset: Fraction = Fraction(0)
    interval: tuple[Fraction, Fraction] | None = None
    """What of the media was coded, in their time; None for all."""


def place(observations: Sequence[Observation], drafts: Drafts, choices: Choices) -> None:
    """Put observations on their videos. Where several code one video, `choices.observations` tells which."""
    chosen = _chosen(observations, drafts, choices)
    if choices.modifiers:
        chosen = [_with_modified(observation) for observation in chosen]
    else:
        _say_modifiers(chosen, drafts.remarks)
    for observation in chosen:
        _place(observation, drafts, choices)


def _with_modified(observation: Observation) -> Observation:
    """A class of each behaviour and its modifiers."""
    events = tuple(replace(event, label=event.modified) for event in observation.events)
    return replace(observation, events=events)


def _say_modifiers(observations: Sequence[Observation], remarks: Remarks) -> None:
    modified = dict.fromkeys(
        event.modified for observation in observations for event in observation.events if any(event.modifiers)
    )
    if modified:
        remarks.add(
            "modifiers",
            "",
            f"modifiers are left out, and {few(modified, 8)} stand for their behaviours: --modifiers makes a "
            "class of each.",
        )


def _chosen(observations: Sequence[Observation], drafts: Drafts, choices: Choices) -> list[Observation]:
    """Without those that code a video which another one codes, unless they are named."""
    of_video = dict[str, list[str]]()
    for observation in observations:
        for media in observation.media:
            of_video.setdefault(media.name, []).append(observation.name)
    left_out = dict[str, None]()
    for video, names in of_video.items():
        taken = [name for name in names if name in choices.observations]
        if len(names) < 2 or len(taken) == len(names):
            continue
        others = [name for name in names if name not in taken]
        left_out.update(dict.fromkeys(others))
        if taken:
            drafts.remarks.add("views", video, f"coded by {few(taken)}, as chosen; {few(others)} left out.")
        else:
            drafts.remarks.add(
                "observers",
                video,
                f"coded by {len(names)} observations: {', '.join(names)}. They are not added up: choose one "
                f"with --observation {names[0]}, or name all of them where each coded something else.",
            )
    return [observation for observation in observations if observation.name not in left_out]


def _place(observation: Observation, drafts: Drafts, choices: Choices) -> None:
    where, remarks = observation.name, drafts.remarks
    offset = _offset(observation)
    if offset:
        remarks.add("offset", where, f"times hold an offset of {shown(offset)} s, which was subtracted.")
    parts = list[tuple[Draft | None, Fraction, Fraction | None]]()
    begin = Fraction(0)
    for number, media in enumerate(observation.media):
        draft = drafts.of(media.name, where)
        if draft is not None:
            if media.rate:
                draft.check_rate(media.rate)
            if media.seconds:
                draft.check_length(media.seconds)
        length = media.seconds or (draft.video.seconds if draft is not None else None)
        is_last = number == len(observation.media) - 1
        parts.append((draft, begin, None if is_last or length is None else begin + length))
        if length is None and not is_last:
            remarks.add(
                "no_time",
                where,
                f"the length of {media.name!r} is not known, and so not when the next file begins: put that "
                "video into the folder.",
            )
            break
        begin += length or 0
    for draft, begin, end in parts:
        if draft is not None:
            _fill(draft, observation, begin + offset, None if end is None else end + offset, choices)


def _offset(observation: Observation) -> Fraction:
    """What to subtract: none where times before it show that they do not hold it."""
    times = [event.start for event in observation.events]
    return observation.offset if not times or min(times) >= observation.offset else Fraction(0)


def _fill(
    draft: Draft, observation: Observation, begin: Fraction, end: Fraction | None, choices: Choices
) -> None:
    """The events between two times of an observation, on the file that was shown then."""
    if not observation.events:
        if choices.uncoded == "unknown":
            draft.add_unknown(0, draft.video.n_frames, "nothing was coded")
        draft.remarks.add(
            "nothing_coded",
            observation.name,
            f"no event in {draft.video.source}: "
            + (
                "it is taken as not coded, and makes no clip; where nothing happened in it, say --uncoded "
                "nothing."
                if choices.uncoded == "unknown"
                else "it is taken as coded, with nothing in it, as --uncoded nothing says."
            ),
        )
    if observation.interval is not None:
        rate = draft.video.rate
        first, stop = (frame_at(time - begin + _offset(observation), rate) for time in observation.interval)
        draft.add_unknown(0, first, "before the observation's time interval")
        draft.add_unknown(stop, draft.video.n_frames, "after the observation's time interval")
        draft.remarks.add(
            "unlabelled",
            observation.name,
            f"frames of {draft.video.source} outside {first} to {stop - 1}: "
            "outside the observation's time interval, they make no clip.",
        )
    for event in observation.events:
        if end is not None and event.start >= end:
            continue
        if event.is_point:
            if event.start >= begin:
                draft.add_point(
                    event.where,
                    event.label,
                    event.start - begin,
                    subject=event.subject,
                    modifiers=event.modifiers,
                )
        elif event.stop is None:
            _unclosed(draft, event, begin, choices)
        elif event.stop > begin or event.start == event.stop == begin:
            _state(draft, event, event.stop, begin, end)


def _state(draft: Draft, event: Event, stop: Fraction, begin: Fraction, end: Fraction | None) -> None:
    if _REPAIRED in event.comment:
        draft.remarks.add(
            "closed_by_program",
            event.where,
            f"the stop of {event.label!r} at {shown(stop)} s was added by BORIS's repair of unpaired states, "
            "not by the observer: taken as it is.",
        )
    draft.add_seconds(
        event.where,
        event.label,
        max(event.start, begin) - begin,
        (stop if end is None else min(stop, end)) - begin,
        subject=event.subject,
        modifiers=event.modifiers,
    )


def _unclosed(draft: Draft, event: Event, begin: Fraction, choices: Choices) -> None:
    start = max(event.start, begin) - begin
    first, n_frames = frame_at(start, draft.video.rate), draft.video.n_frames
    what = (
        f"{event.label!r} of {event.subject or 'no subject'} begins at {shown(event.start)} s and never stops"
    )
    if choices.unclosed == "end" and first < n_frames:
        draft.add_seconds(
            event.where,
            event.label,
            start,
            draft.video.seconds,
            subject=event.subject,
            modifiers=event.modifiers,
        )
        draft.remarks.add("unclosed", event.where, f"{what}: it ends with the video, as --unclosed end says.")
        return
    draft.add_unknown(first, n_frames, "a state was never closed", label=event.label, subject=event.subject)
    draft.remarks.add(
        "unclosed",
        event.where,
        f"{what}: from frame {first} of {draft.video.source} on {event.label!r} is unknown, and no clip "
        "is made "
        "there; close it in BORIS, or say --unclosed end to end it with the video.",
    )
