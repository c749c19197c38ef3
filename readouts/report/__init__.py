"""The page, and the tables of the same rows."""
