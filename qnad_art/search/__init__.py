"""The search for good settings of tuned crosstalk, with Optuna."""
