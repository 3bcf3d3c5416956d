"""Fixtures of all tests: a cache of the session's own, devices, networks, random crosstalk."""

import os
import sys

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from torch import nn

from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile, Edge
from qnad_art.plugins.discovery import VARIABLE, without_plugins

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # with more, processes and threads fight for the cores

settings.register_profile("qnad", derandomize=True, deadline=None, database=None)
# mutmut runs the tests again and again in forks of one process, and asks only whether they fail.
settings.register_profile(
    "mutmut",
    settings.get_profile("qnad"),
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.differing_executors],
)
settings.load_profile("mutmut" if "MUTANT_UNDER_TEST" in os.environ else "qnad")


def pytest_addoption(parser):
    parser.addoption(
        "--write-attack-table",
        action="store_true",
        help="the table of ART's attacks is written, not compared (without -n)",
    )


def pytest_configure(config):
    """What else is installed plays no part: tests of names are made while they are collected."""
    built_ins_only = without_plugins()
    built_ins_only.__enter__()
    config.add_cleanup(lambda: built_ins_only.__exit__(None, None, None))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Response tables of the session are computed once, and never those of the user."""
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QNAD_CACHE_DIR", str(directory))
        yield directory


@pytest.fixture(scope="session")
def nairobi():
    return load_device("ibm_nairobi")


@pytest.fixture(scope="session")
def paper_nairobi():
    """ibm_nairobi under the crosstalk model of the paper, where a word is gate pairs alone."""
    return load_device("ibm_nairobi[crosstalk=paper]")


@pytest.fixture(scope="session")
def ecr_line(nairobi):
    """Five noisy qubits in a line whose compute qubits are ECR targets: C has no zero row."""
    edges = [
        Edge(control=control, target=target, error=0.01, duration=5e-7, zz_hz=zz)
        for control, target, zz in [(1, 0, 9e4), (1, 2, 1.2e5), (3, 2, -7e4), (3, 4, 1.1e5)]
    ]
    return DeviceProfile(
        name="ecr-line",
        two_qubit_gate="ecr",
        qubits=nairobi.qubits[:5],
        edges=tuple(edges),
        crosstalk_model="paper",
    )


@pytest.fixture
def small_net():
    """Function: an untrained two-layer network for inputs (N, 1, 4, 4), in float64."""

    def build(seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Conv2d(1, 2, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
            ).double()

    return build


@pytest.fixture
def random_tensor():
    """Function: seeded N(0, 1), float64, whatever ran before."""

    def draw(*shape, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return draw


@pytest.fixture
def random_crosstalk():
    """Function: give every layer of a module random sites and signed pair counts."""
    from qnad_art.testing.specimens import install_random_crosstalk  # ART, which takes seconds

    def install(module, seed=0, most=8):
        install_random_crosstalk(module, most=most, seed=seed)
        return module

    return install


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Function: install these distributions, here and for processes started from here.

    They are on the allow-list, so that plugins which are really installed play no part.
    """
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = tmp_path / "site-packages"
    folder.mkdir()
    before = set(sys.modules)

    def install(*distributions):
        names = [name for each in distributions for name in each.install(folder)]
        monkeypatch.setenv(VARIABLE, ",".join(names))
        monkeypatch.syspath_prepend(folder)
        paths = [str(folder), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        return folder

    yield install
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
