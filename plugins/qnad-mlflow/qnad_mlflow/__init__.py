"""Results of qnad-art in MLflow."""

__version__ = "0.1.0"
