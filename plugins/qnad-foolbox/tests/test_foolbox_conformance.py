"""The conformance suite of attacks, for each of this distribution."""

from importlib.metadata import entry_points

import pytest

from qnad_art.testing import check_attack

QUICK = {
    "foolbox-cw-l2": {"steps": 20, "binary_search_steps": 3},
    "foolbox-ead": {"steps": 20, "binary_search_steps": 3},
    "foolbox-salt-and-pepper": {"steps": 100},
    "foolbox-brendel-bethge-linf": {"steps": 40},
    "foolbox-brendel-bethge-l2": {"steps": 40},
}
NAMES = sorted(
    point.name
    for point in entry_points(group="qnad_art.attacks")
    if point.value.startswith("qnad_foolbox.")
)
COMPILED = "brendel-bethge"  # a minute of compiling


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if COMPILED in n else ()) for n in NAMES],
)
def test_conforms(name):
    check_attack(name, **QUICK.get(name, {}))
