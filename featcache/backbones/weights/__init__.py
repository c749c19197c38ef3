"""Weight files: where they are, what is in them, and whether they are what they were."""
