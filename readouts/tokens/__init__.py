"""A batch as heads see it: up-sampled and normalised without being written, pooled clip by clip."""
