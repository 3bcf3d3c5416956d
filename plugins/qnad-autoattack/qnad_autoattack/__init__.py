"""AutoAttack of its authors for qnad-art."""

__version__ = "0.1.0"
