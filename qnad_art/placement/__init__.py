"""Where and when products run: qubits, neighbours, time steps, and the crosstalk plan."""
