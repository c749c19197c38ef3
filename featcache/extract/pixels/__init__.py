"""From the files of a clip to the pixels that a model takes, made by the host or by a device of its own."""
