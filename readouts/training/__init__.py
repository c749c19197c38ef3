"""One run and many: gradients, the optimiser, the pass over the data, checkpoints and scores."""
