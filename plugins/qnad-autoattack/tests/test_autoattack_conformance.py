"""The conformance suite of attacks, for each of this distribution."""

from importlib.metadata import entry_points

import pytest

from qnad_art.testing import check_attack

QUICK = {
    "pyautoattack-standard": {"max_iter": 5, "max_queries": 20},
    "pyautoattack-rand": {"max_iter": 5, "eot_iter": 1},
    "pyautoattack-apgd-t": {"max_iter": 5},
    "pyautoattack-fab-t": {"max_iter": 5},
    "pyautoattack-square": {"max_queries": 200, "resc_schedule": True},
}
NAMES = sorted(
    point.name
    for point in entry_points(group="qnad_art.attacks")
    if point.value.startswith("qnad_autoattack.")
)


@pytest.mark.parametrize("name", NAMES)
def test_conforms(name):
    check_attack(name, **QUICK.get(name, {}))
