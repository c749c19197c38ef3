"""Readouts trained by the reference implementation: its parameters in ours, and back."""
