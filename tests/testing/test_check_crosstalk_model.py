from dataclasses import dataclass

import fake_plugins
import pytest

from qnad_art.circuits.crosstalk_models import CrosstalkModel
from qnad_art.errors import PluginError
from qnad_art.plugins.discovery import plugin_names
from qnad_art.testing import check_crosstalk_model, checks_for


@pytest.mark.parametrize("name", plugin_names("crosstalk model"))
@pytest.mark.parametrize("check", checks_for("crosstalk model"), ids=lambda check: check[0])
def test_built_in_conforms(name, check):
    check[1](name)


@dataclass(frozen=True)
class Lopsided(CrosstalkModel):
    """The rate depends on the order of the qubits."""

    def rate(self, device, first, second):
        return super().rate(device, first, second) * (1 + 0.1 * (first > second))


LOPSIDED = Lopsided("lopsided", timed=True)
OTHER = CrosstalkModel("another", timed=True)


def test_a_rate_that_depends_on_the_order_of_the_qubits_is_told(installed):
    line = "lopsided = test_check_crosstalk_model:LOPSIDED"
    installed(fake_plugins.Fake("qnad-lopsided", "crosstalk model", line))
    with pytest.raises(AssertionError, match="rates_are_of_pairs"):
        check_crosstalk_model("lopsided")


def test_a_model_has_the_name_under_which_it_is_registered(installed):
    line = "misnamed = test_check_crosstalk_model:OTHER"
    installed(fake_plugins.Fake("qnad-misnamed", "crosstalk model", line))
    with pytest.raises(PluginError, match="calls itself 'another'"):
        check_crosstalk_model("misnamed")
