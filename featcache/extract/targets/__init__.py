"""What a task needs of each clip beside its pixels, and whose the clip is."""
