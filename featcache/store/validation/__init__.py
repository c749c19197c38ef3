"""Is what lies on disk what it claims to be, every byte of it; and seals for what has none yet."""
