"""A scientist's own videos, cut into clips by a rule or by a list."""
