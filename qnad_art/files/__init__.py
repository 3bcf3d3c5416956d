"""Atomic files, and artifacts whose faults are reported by name."""
