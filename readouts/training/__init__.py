"""One run and many: settings, gradients, the optimiser, the pass over the data, checkpoints; and probes."""
