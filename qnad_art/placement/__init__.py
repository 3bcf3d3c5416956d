"""Where and when products run: compute qubits, neighbours, time steps, and the crosstalk plan."""
