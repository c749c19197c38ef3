"""Stage one: run a frozen model once over a split's clips and keep its tokens in a Zarr store."""
