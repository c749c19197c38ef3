"""Where data, backbone and store meet: clips to pixels to tokens to disk."""
