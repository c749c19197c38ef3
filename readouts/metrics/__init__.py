"""The benchmark's scores: pure functions of outputs and targets."""
