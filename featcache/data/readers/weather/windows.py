"""Windows of a long series: which time steps of a store are the clips of a split. Pure arithmetic on times.

The reference cuts windows by index and trusts the time axis to be unbroken; here it is checked, because a
window across a gap would look like any other. Counts, starts and frames are the reference's own.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from jaxtyping import Int64

from featcache.data.readers.base import UnreadableError
from featcache.manifest import Windows

_HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowPlan:
    """The windows of a split, as indices in the store's whole time axis."""

    starts: Int64[np.ndarray, " B"]
    """The first frame of each window."""
    stride: int
    """Time steps from one frame of a window to the next."""
    n_frames: int
    axis_hours: int
    """Hours from one time step to the next."""
    begin: int
    """Index of the split's first time step."""

    def frames(self, starts: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, "b F"]:
        """The time steps of the windows that begin at `starts`."""
        return starts[:, None] + self.stride * np.arange(self.n_frames)


def plan_windows(times: np.ndarray, windows: Windows) -> WindowPlan:
    """Cut a split's windows out of the time axis of a store: datetime64 of any unit, UTC.

    On an hourly axis, n hours of a split hold ceil((n - offset - (n_frames - 1) * step) / every) windows; the
    first begins `offset_hours` after the split's first time. Source: `WBPygrainDataSource` of the reference.

    Raises:
        UnreadableError: the axis is not ascending, or within the split not even or not of whole hours; no
            window fits into the split; `windows` asks for hours that fall between two times.
    """
    chosen = _steps_of_split(times, windows)
    axis_hours = even_step(times[chosen])
    offset = _in_steps("offset_hours", windows.offset_hours, axis_hours)
    stride = _in_steps("step_hours", windows.step_hours, axis_hours)
    every = _in_steps("every_hours", windows.every_hours, axis_hours)
    n_starts = len(chosen) - offset - (windows.n_frames - 1) * stride
    if n_starts < 1:
        reach = f"{hour(times[chosen[0]])} to {hour(times[chosen[-1]])}"
        raise UnreadableError(
            f"of the split it holds {reach}, too short for one window of {windows.n_frames} frames, "
            f"{windows.step_hours} hours apart, that begins {windows.offset_hours} hours after its first time"
        )
    return WindowPlan(
        starts=int(chosen[0]) + offset + every * np.arange(ceil(n_starts / every)),
        stride=stride,
        n_frames=windows.n_frames,
        axis_hours=axis_hours,
        begin=int(chosen[0]),
    )


def hour(time: np.datetime64) -> str:
    """A time as users read it, and as windows are called: `2017-12-24T18`."""
    return str(np.datetime_as_string(time, unit="h", casting="unsafe"))


def _steps_of_split(times: np.ndarray, windows: Windows) -> Int64[np.ndarray, " n"]:
    """Indices of the split's times; a date lasts as long as it is precise, so `2017` all year."""
    back = np.flatnonzero(~(times[1:] > times[:-1]))
    if back.size:
        before, after = times[back[0]], times[back[0] + 1]
        mended = 'drop_duplicates("time")' if after == before else 'sortby("time")'
        raise UnreadableError(
            f"its time axis is not ascending: {hour(after)} follows {hour(before)}; write it again in order: "
            f"xarray.open_zarr(...).{mended}.to_zarr(...)"
        )
    first, end = np.datetime64(windows.first), np.datetime64(windows.last) + 1
    chosen = np.flatnonzero((times >= first) & (times < end))
    if len(chosen) < 2:
        reach = f"{hour(times[0])} to {hour(times[-1])}" if len(times) else "no times at all"
        raise UnreadableError(f"it holds no series from {windows.first} to {windows.last}, but {reach}")
    return chosen


def even_step(times: np.ndarray) -> int:
    """Hours from one time to the next; raises UnreadableError where that is not even, or not of hours."""
    steps = np.diff(times)
    kinds, counts = np.unique(steps, return_counts=True)
    step = kinds[counts.argmax()]
    uneven = np.flatnonzero(steps != step)
    if uneven.size:
        before, after = times[uneven[0]], times[uneven[0] + 1]
        raise UnreadableError(
            f"its time axis is broken: {hour(before)} is followed by {hour(after)}, where the others are "
            f"{step / _HOUR:g} h apart, and no window may lie across: give the "
            "longest stretch that is whole (xarray: .sel(time=slice(first, last))), or fill what is missing"
        )
    if step % _HOUR != np.timedelta64(0) or times[0] != times[0].astype("datetime64[h]"):
        raise UnreadableError(f"its times are not whole hours: {times[0]}, then {times[1]}")
    return int(step / _HOUR)


def _in_steps(name: str, hours: int, axis_hours: int) -> int:
    steps, rest = divmod(hours, axis_hours)
    if rest:
        raise UnreadableError(f"its times are {axis_hours} h apart, and {name}: {hours} falls between two")
    return steps
