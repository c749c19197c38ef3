"""Fields on a regular time axis in one Zarr store (WeatherBench 2)."""
