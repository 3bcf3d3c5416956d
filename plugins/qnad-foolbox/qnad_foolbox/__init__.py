"""Foolbox's attacks for qnad-art."""

__version__ = "0.1.0"
