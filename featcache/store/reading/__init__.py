"""Chunks from shard files to whoever asked for them, by a few threads, each verified once."""
