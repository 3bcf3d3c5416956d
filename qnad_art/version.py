"""The version of the package, from which all other places read it."""

__version__ = "0.1.0"
