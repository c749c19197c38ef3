"""Object stores: a path that begins with `s3://`, `gs://` or the like, and what is asked of the bucket."""
