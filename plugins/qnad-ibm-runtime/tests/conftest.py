"""A cache of the session's own, no settings from the environment, devices, products."""

import os

import numpy as np
import pytest

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.words import wait_seconds
from qnad_art.device.catalogue import load_device
from qnad_art.placement.placement import device_placement
from qnad_ibm_runtime.settings import PREFIX


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QNAD_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        yield


def without_zz(name):
    """What the noise of a fake backend knows of a device: all but the ZZ coupling.

    Waits stay as long as the coupling made them.
    """
    device = load_device(name)
    model = crosstalk_model(device)
    pairs = list(device.edge_of)
    waits = {pair: wait_seconds(device, *pair, model=model) for pair in pairs if model.timed}
    return device.programmed_as(waits).model_copy(update={"zz_scale": 0.0})


@pytest.fixture(scope="session")
def nairobi():
    return without_zz("ibm_nairobi")


@pytest.fixture(scope="session")
def nairobi_of_paper():
    return without_zz("ibm_nairobi[crosstalk=paper]")


@pytest.fixture(scope="session")
def sherbrooke():
    return without_zz("ibm_sherbrooke")


@pytest.fixture(scope="session")
def random_products():
    """Function: arguments of ``expectations``, every kind of site, both polarities."""

    def draw(device, count, *, most=2, compute=None, echo=False, seed=0):
        random = np.random.default_rng(seed)
        sites = device_placement(device, compute=compute, echo=echo).sites
        theta, phi = random.uniform(-np.pi, np.pi, (2, count))
        site = random.integers(len(sites), size=count)
        injectable = np.array([s.neighbour is not None for s in sites])[site]
        pairs = random.integers(-most, most + 1, size=count) * injectable
        return theta, phi, sites, site, pairs

    return draw
