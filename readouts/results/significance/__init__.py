"""How far scores and their differences are from luck: resamples of clips, spread of seeds, verdicts."""
