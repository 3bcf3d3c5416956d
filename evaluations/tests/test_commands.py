"""The commands of this distribution, as ``qnad`` finds them."""

import pytest

from qnad_art.plugins.discovery import find_plugins
from qnad_art.testing import check_command

COMMANDS = [plugin.name for plugin in find_plugins("command") if not plugin.built_in]


def test_they_are_found():
    assert COMMANDS == ["bench", "paper", "results"]


@pytest.mark.parametrize("name", COMMANDS)
def test_they_conform(name):
    check_command(name)
