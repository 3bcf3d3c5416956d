"""Layers whose products run as circuits: kernels, sums, and shot noise."""
