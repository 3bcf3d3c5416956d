"""The cost of an inference on hardware: circuits, shots, gates, and time."""
