"""The same steps with the backbone in the loop and from the cache; the verdict stays with the store."""
