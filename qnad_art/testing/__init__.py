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
"""

from qnad_art.testing.by_kind import checks_for
from qnad_art.testing.check_attack import check_attack
from qnad_art.testing.check_command import check_command
from qnad_art.testing.check_crosstalk_model import check_crosstalk_model
from qnad_art.testing.check_dataset import check_dataset
from qnad_art.testing.check_defence import check_defence
from qnad_art.testing.check_device import check_device
from qnad_art.testing.check_engine import check_engine
from qnad_art.testing.check_model import check_model
from qnad_art.testing.check_sink import check_sink
from qnad_art.testing.check_strategy import check_strategy

__all__ = [
    "check_attack",
    "check_command",
    "check_crosstalk_model",
    "check_dataset",
    "check_defence",
    "check_device",
    "check_engine",
    "check_model",
    "check_sink",
    "check_strategy",
    "checks_for",
]
