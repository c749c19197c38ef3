"""Readouts trained by the reference implementation, evaluated here with its parameters."""
