"""Tokens to disk and back: what a store is, byte by byte, and who may open it."""
