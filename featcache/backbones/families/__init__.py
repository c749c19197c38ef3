"""A file for each family of models: the map from its released keys, and its layers unless they are in `vit`."""
