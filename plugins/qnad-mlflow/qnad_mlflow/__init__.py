"""Results of qnad-art in MLflow."""

import os

# Before MLflow is imported, which decides then: nothing is sent that was not asked for.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

__version__ = "0.1.0"
