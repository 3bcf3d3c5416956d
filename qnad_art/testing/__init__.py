"""Conformance suites for plugins, one a kind: each call runs a list of named checks.

In the manner of scikit-learn's ``check_estimator``. In a plugin's tests::

    from qnad_art.testing import check_strategy

    def test_conforms():
        check_strategy("my-strategy")

or, to see one test a check::

    import pytest
    from qnad_art.testing import checks_for

    @pytest.mark.parametrize(("name", "check"), checks_for("strategy"))
    def test_conforms(name, check):
        check("my-strategy")
"""

from qnad_art.testing.catalogue import checks_for
from qnad_art.testing.engine import check_engine
from qnad_art.testing.strategy import check_strategy

__all__ = ["check_engine", "check_strategy", "checks_for"]
