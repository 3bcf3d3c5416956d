"""QNAD for ART: pretrained PyTorch networks run as noisy quantum circuits, hardened by crosstalk."""

__version__ = "0.1.0"
