"""What an inference would cost on hardware: circuits, shots, gates, and time."""
