"""A file for each family of models: the map from its released keys, and the layers that `vit` does not have."""
