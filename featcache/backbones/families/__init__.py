"""A file for each family of models: the map from its released keys, and layers that are not in `vit`."""
