"""Files to pixels: which clips a split has, which frames a clip shows, and what a view makes of them."""
