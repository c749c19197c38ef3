"""How scores, settings and numbers are written: the digits, spreads and brackets of every table and page."""

from readouts.results.comparability import Row, tuning_of
from readouts.results.configurations import Configuration
from readouts.results.significance.bootstrap import Interval

METRICS = {
    "mean_AP": "mAP",
    "average_over_thresholds": "accuracy",
    "average_jaccard": "Average Jaccard",
    "pressure/rmse": "RMSE (hPa)",
    "Z500/rmwse": "RMSE of Z500 (m2/s2)",
}
"""The benchmark's scores as its paper calls them, with their units."""


def format_score(value: float | None, like: float | None = None) -> str:
    """A score as tables have it: three digits after the point, or one where it is 10 and more.

    Args:
        value: the score, or a number that stands beside one; None gives an empty text.
        like: the score beside which `value` stands, whose digits it has.
    """
    if value is None:
        return ""
    return f"{value:.{3 if abs(value if like is None else like) < 10 else 1}f}"


def format_mean(one: Configuration, role: str) -> str | None:
    """The mean over seeds and, of several, their standard deviation; None where none was scored on `role`."""
    mean, spread = one.mean(role), one.spread(role)
    if mean is None:
        return None
    score = format_score(mean)
    return score if spread is None else f"{score} ± {format_score(spread, like=mean)}"


def metric_title(metric: str) -> str:
    """What a heading calls a score."""
    quantity, _, error = metric.partition("/")
    generic = f"RMSE of {quantity}" if error in ("rmse", "rmwse") else metric
    return METRICS.get(metric, generic)


def format_published(value: float) -> str:
    """A score with the digits of its paper, three at least: a number does not know that 0.28 was 0.280."""
    before, _, after = f"{value:.10g}".partition(".")
    return f"{value:.{max(len(after), 3 - len(before.lstrip('-0')))}f}"


def counted(n: int, what: str) -> str:
    """A number and what it counts: `1 seed`, `2 seeds`."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def format_tuned(row: Row) -> str:
    """What a row's run trained of the backbone; empty where it was frozen."""
    tuned = tuning_of(row).get("tune")
    if tuned is None:
        return ""
    return "all of it tuned" if tuned == "all" else f"{counted(tuned, 'upper block')} tuned"


def format_settings(one: Configuration) -> str:
    """The settings in which a configuration differs from others of its readout."""
    return ", ".join(
        f"{name} {format_value(value)}" for name, value in sorted(one.settings.items()) if value is not None
    )


def format_value(value: object) -> str:
    """The value of a setting, a float with no more digits than it needs."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_interval(interval: Interval | None, score: float | None) -> str:
    """`[low, high]` with the digits of the score that it belongs to; empty where there is no interval."""
    if interval is None:
        return ""
    return f"[{format_score(interval.low, like=score)}, {format_score(interval.high, like=score)}]"


def configuration_cells(one: Configuration) -> dict[str, object]:
    """One configuration as a row of a table: column -> what stands there, None where that is nothing."""
    best = one.best
    return {
        "backbone": best["backbone"],
        "readout": best["readout"],
        **{role: format_mean(one, role) for role in ("val", "test")},
        "seeds": len(one.rows),
        "settings": format_settings(one) or None,
        "layer": best["layer"],
        "exactness": best["exactness"],
    }
