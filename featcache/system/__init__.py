"""The machine: devices, threads, files that appear whole, what comes from the web, and the console."""
