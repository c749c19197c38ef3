"""Workers that do a command's tasks, in processes of this machine or on a cluster, by Dask."""
