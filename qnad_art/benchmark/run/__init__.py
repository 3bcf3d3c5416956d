"""Runs: which cells are measured, in which order and by which workers, and where results are."""
