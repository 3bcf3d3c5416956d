"""Training: of weights, and of whatever else is optimised on adversarial examples."""
