"""A store and its batches on the device: which clip each step takes, read ahead into reused buffers."""
