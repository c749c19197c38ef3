"""The machine: devices, threads, files that appear whole, and the console."""
