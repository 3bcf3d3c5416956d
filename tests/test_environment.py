import builtins
import sys

import pytest

from qnad_art.environment import import_torchvision
from qnad_art.errors import DependencyError, QnadError


def test_the_installed_pair_is_fine():
    assert import_torchvision().__name__ == "torchvision"


def test_a_torchvision_for_another_torch_is_explained(monkeypatch):
    """A CPU-only torch beside the registry's torchvision fails with exactly this error."""
    real = builtins.__import__

    def failing(name, *rest, **named):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(builtins, "__import__", failing)
    with pytest.raises(DependencyError, match=r"matching pair") as raised:
        import_torchvision()
    assert "nms does not exist" in str(raised.value)
    assert isinstance(raised.value, QnadError)
