"""The formats of label files: a module a member, each with `recognises` and `read` of `base.Importer`.

`IMPORTERS` lists them in the order in which a file is tried: those that are sure of what they see come first.
"""

IMPORTERS: dict[str, str] = {
    "boris": "featcache.data.labels.formats.boris",
    "boris_tables": "featcache.data.labels.formats.boris_tables",
    "feral": "featcache.data.labels.formats.feral",
    "calms21": "featcache.data.labels.formats.calms21",
    "via": "featcache.data.labels.formats.via",
    "annot": "featcache.data.labels.formats.annot",
    "fly_bouts": "featcache.data.labels.formats.fly_bouts",
    "metadata": "featcache.data.labels.formats.metadata",
    "lists": "featcache.data.labels.formats.lists",
    "intervals": "featcache.data.labels.formats.intervals",
    "deepethogram": "featcache.data.labels.formats.deepethogram",
    "elan": "featcache.data.labels.formats.elan",
    "folders": "featcache.data.labels.formats.folders",
}
"""Name of a format -> its module."""

WRITERS = {".boris": "boris", ".annot": "annot"}
"""Ending of a file -> the format that is written, by `write` of `base.Writer`."""

BOUT_COLUMNS = ("video", "class", "first frame", "last frame", "start", "stop", "mean score")
"""Of a table of predicted bouts."""

VALUE_COLUMNS = ("video", "value", "mean", "min", "max")
"""Of a summary of predicted values."""

POINT_COLUMNS = ("video", "point", "first frame", "frames", "seen", "path")
"""Of a summary of points that were followed."""

CHANNEL = "scivid"
"""Of an `.annot` file that is written."""

MARKS = {
    "boris": "written by scivid",  # the project's name, which BORIS keeps
    "annot": f"List of channels:\n{CHANNEL}\n",
    "bouts": ",".join(BOUT_COLUMNS),
    "values": ",".join(VALUE_COLUMNS),
    "points": ",".join(POINT_COLUMNS),
}
"""What stands at the head of predictions, in each format."""
