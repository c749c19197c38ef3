"""Several processes at one store: which shards are whose, who is at which, and who marks it complete."""
