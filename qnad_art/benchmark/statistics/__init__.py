"""Intervals, paired differences, and the worst of all attacks."""
