"""The search for settings of tuned crosstalk, with Optuna."""
