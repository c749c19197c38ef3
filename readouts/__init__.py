"""Stage two: train small heads on cached tokens, and score them as the benchmark does."""
