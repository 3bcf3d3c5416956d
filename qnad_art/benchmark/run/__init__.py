"""Which cells are measured, in what order, by whom, and where the results are kept."""
