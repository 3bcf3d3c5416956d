"""Engine ``pennylane`` of qnad-art: product circuits on PennyLane's mixed-state simulator."""
