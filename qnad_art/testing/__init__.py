"""Conformance suites for plugins, one per kind: each call runs a list of named checks.

They follow scikit-learn's ``check_estimator``. In a plugin's tests, write::

    from qnad_art.testing import check_strategy

    def test_conforms():
        check_strategy("my-strategy")

or, for one test per check::

    import pytest
    from qnad_art.testing import checks_for

    @pytest.mark.parametrize(("name", "check"), checks_for("strategy"))
    def test_conforms(name, check):
        check("my-strategy")

A check that fails raises AssertionError; the message names the check, what was found and what is
expected. A name that does not exist raises UnknownNameError, and a plugin that cannot be used
raises PluginError.
"""

from qnad_art.testing.check_attack import check_attack as check_attack
from qnad_art.testing.check_command import check_command as check_command
from qnad_art.testing.check_crosstalk_model import (
    check_crosstalk_model as check_crosstalk_model,
)
from qnad_art.testing.check_dataset import check_dataset as check_dataset
from qnad_art.testing.check_defence import check_defence as check_defence
from qnad_art.testing.check_device import check_device as check_device
from qnad_art.testing.check_drift_model import check_drift_model as check_drift_model
from qnad_art.testing.check_engine import check_engine as check_engine
from qnad_art.testing.check_mapping import check_mapping as check_mapping
from qnad_art.testing.check_model import check_model as check_model
from qnad_art.testing.check_sink import check_sink as check_sink
from qnad_art.testing.check_strategy import check_strategy as check_strategy
from qnad_art.testing.checks import checks_for as checks_for
