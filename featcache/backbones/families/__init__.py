"""One file a family of frozen models: its architecture, and the map from its released keys."""
