"""One run and many: settings, steps, the optimiser, the pass over the data, checkpoints; and probes."""
