"""A cache of the session's own, not the user's."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QNAD_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
