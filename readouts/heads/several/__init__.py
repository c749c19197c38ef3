"""Readouts that read several stored layers at once."""
