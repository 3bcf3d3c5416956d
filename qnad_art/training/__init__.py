"""Training of weights, and adversarial optimisation of weights or crosstalk."""
