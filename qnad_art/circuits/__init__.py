"""The circuit of one product, its noise model, and the nine numbers that describe its response."""
