"""The circuit of one product, its noise, and the nine numbers that hold its response."""
