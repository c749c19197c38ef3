"""Times of label files as exact fractions of a second, and the frames they stand for.

Frame i of a video is at i / rate, and belongs to a bout when start <= i / rate < stop.
"""

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

_SLACK = Fraction(1, 10_000)
"""Of a frame: what the arithmetic of another program may have added to a time that falls on a frame."""
_MOST = 10**11
"""Seconds, or frames: a time may count from 1970."""
_SAME_RATE = Fraction(1, 2000)
"""29.97 and 30000/1001 are one rate, 29.97 and 30 are two."""


def frame_at(seconds: Fraction, rate: Fraction) -> int:
    """The first frame that is not before `seconds`: where a bout starts, or the frame after its last."""
    return max(0, -((_SLACK - seconds * rate) // 1))


def parse_time(text: str) -> Fraction | None:
    """Seconds of `3.25`, `3,25`, `00:00:03.250`, `00:00:03,250`, `1:03.5`; None of anything else."""
    text = text.strip().replace(",", ".")
    if text.count(":") > 2 or not re.fullmatch(r"[-+0-9.eE:]+", text):
        return None
    seconds = Fraction(0)
    for n, part in enumerate(parts := text.split(":")):
        value = parse_number(part)
        if value is None or (len(parts) > 1 and (value < 0 or (n and value >= 60))):
            return None
        seconds = seconds * 60 + value
    return seconds


def parse_number(text: object) -> Fraction | None:
    """A number written out or read from JSON, exactly; None of anything else, also of NaN."""
    try:
        value = Decimal(str(text).strip())
    except InvalidOperation:
        return None
    return Fraction(value) if value.is_finite() and abs(value) < _MOST and value.adjusted() > -40 else None


def is_whole(value: Fraction) -> bool:
    """Whether a number has nothing behind its point."""
    return value.denominator == 1


def same_rate(one: Fraction, other: Fraction) -> bool:
    """Whether two rates are one, written with more or fewer digits."""
    return abs(one - other) <= _SAME_RATE * max(one, other)


def shown(value: Fraction) -> str:
    """A time or rate as people write it: 29.97, 0.5, 10."""
    return f"{float(value):.3f}".rstrip("0").rstrip(".")
