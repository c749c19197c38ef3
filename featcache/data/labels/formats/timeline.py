"""An observation of BORIS, from its project or one of its tables, put on the videos it was coded from.

Times of an observation run over all files of its first player, one after the other, and hold its time offset;
or each file begins when it was filmed. Files are as long as whole milliseconds of theirs, as BORIS adds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from featcache.data.labels.base import Choices
from featcache.data.labels.drafts import Draft, Drafts
from featcache.data.labels.remarks import Remarks
from featcache.data.labels.timing import frame_at, shown
from featcache.data.labels.videos import meant_by
from featcache.errors import few

_REPAIRED = "automatically added"
"""In the comment of a stop that BORIS's repair of unpaired states wrote."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """A file of an observation."""

    name: str
    seconds: Fraction | None = None
    rate: Fraction | None = None
    filmed: Fraction | None = None
    """When it was filmed, where the observation's times count from there."""


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
    joint: Fraction = Fraction(0)
    """Seconds by which the file may have rounded up the length of each medium."""


def place(observations: Sequence[Observation], drafts: Drafts, choices: Choices) -> None:
    """Put observations on their videos. Where several code one video, `choices.observations` tells which."""
    chosen = _chosen(observations, drafts, choices)
    if choices.modifiers:
        chosen = [_with_modified(observation) for observation in chosen]
    else:
        _say_modifiers(chosen, drafts.remarks)
    drafts.expect((media.name for one in observations for media in one.media), one_each=True)
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
    for video, names in _coding(observations, drafts).items():
        of_video[video] = list(dict.fromkeys(names))
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


def _coding(observations: Sequence[Observation], drafts: Drafts) -> dict[str, list[str]]:
    """Names of the observations of each video at hand, whatever path each has for it."""
    named = dict[str, list[tuple[str, str]]]()
    for observation in observations:
        for media in observation.media:
            at_hand = drafts.video_of(media.name)
            video = media.name if at_hand is None else at_hand.source
            named.setdefault(video, []).append((media.name, observation.name))
    coding = dict[str, list[str]]()
    for video, found in named.items():
        meant, _ = meant_by(video, [path for path, _ in found])
        coding[video] = [name for path, name in found if path in meant or not meant]
    return coding


@dataclass(frozen=True, slots=True)
class _Part:
    """A file in the time of its observation."""

    draft: Draft | None
    begin: Fraction
    end: Fraction | None
    """None of the last file."""
    played: Fraction
    """What was shown before it, in seconds."""
    number: int
    """Of its place, from 0: so many lengths may have been rounded up before."""


def _place(observation: Observation, drafts: Drafts, choices: Choices) -> None:
    offset = _offset(observation)
    if offset:
        drafts.remarks.add(
            "offset",
            observation.name,
            f"times hold an offset of {shown(offset)} s, which was subtracted.",
        )
    drafts.expect(media.name for media in observation.media)
    for part in _parts(observation, drafts):
        if part.draft is not None:
            shifted = replace(
                part, begin=part.begin + offset, end=None if part.end is None else part.end + offset
            )
            _fill(part.draft, observation, shifted, choices)


def _parts(observation: Observation, drafts: Drafts) -> list[_Part]:
    """Where each file begins and ends."""
    parts, played = list[_Part](), Fraction(0)
    in_order = sorted(observation.media, key=lambda media: media.filmed or 0)
    for number, media in enumerate(in_order):
        draft = drafts.of(media.name, observation.name)
        if draft is not None:
            if media.rate:
                draft.check_rate(media.rate)
            if media.seconds:
                draft.check_length(media.seconds)
        begin = played if media.filmed is None else media.filmed
        length = media.seconds or (draft.video.seconds if draft is not None else None)
        is_last = number == len(in_order) - 1
        # As the program cuts it: a product of floats.
        shown_for = None if length is None else Fraction(int(float(length) * 1000), 1000)
        end = None if is_last or shown_for is None else begin + shown_for
        parts.append(_Part(draft, begin, end, played, number))
        if shown_for is None and not is_last:
            drafts.remarks.add(
                "no_time",
                observation.name,
                f"the length of {media.name!r} is not known, and so not when the next file begins: put that "
                "video into the folder.",
            )
            break
        played += shown_for or 0
    return parts


def _offset(observation: Observation) -> Fraction:
    """What to subtract: none where times before it show that they do not hold it."""
    times = [event.start for event in observation.events]
    return observation.offset if not times or min(times) >= observation.offset else Fraction(0)


def _fill(draft: Draft, observation: Observation, part: _Part, choices: Choices) -> None:
    """The events of an observation on the file that was shown then."""
    begin, end = part.begin, part.end
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
        first, stop = (frame_at(time - part.played, rate) for time in observation.interval)
        draft.add_unknown(0, first, "before the observation's time interval")
        draft.add_unknown(stop, draft.video.n_frames, "after the observation's time interval")
        draft.remarks.add(
            "unlabelled",
            observation.name,
            f"frames of {draft.video.source} outside {first} to {stop - 1}: "
            "outside the observation's time interval, they make no clip.",
        )
    for event in observation.events:
        if end is not None and event.start >= end - (part.number + 1) * observation.joint:
            continue
        if event.is_point:
            if event.start >= begin - part.number * observation.joint:
                draft.add_point(
                    event.where,
                    event.label,
                    max(event.start, begin) - begin,
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
