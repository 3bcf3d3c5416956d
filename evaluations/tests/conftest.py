"""Fixtures of these tests: a cache of the session's own, and no plugins but this distribution."""

import pytest

from qnad_art.plugins.discovery import VARIABLE


def pytest_configure(config):
    """What else is installed plays no part; as long as tests run, and in processes they start."""
    patch = pytest.MonkeyPatch()
    patch.setenv(VARIABLE, "qnad-evaluations")
    config.add_cleanup(patch.undo)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QNAD_CACHE_DIR", str(directory))
        yield directory
