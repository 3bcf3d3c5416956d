"""Engines that carry out the jobs of a run: this machine, a Dask cluster, a Ray cluster."""
