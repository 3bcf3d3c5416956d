"""Words under crosstalk models in time, against the response table that Aer's channels give."""

import numpy as np
import pytest

from qnad_art.circuits.injection import injection_sites
from qnad_art.circuits.product import Site
from qnad_art.circuits.response import response_table
from qnad_art.device.catalogue import load_device
from qnad_pennylane.engine import PennyLaneEngine


def detuned(device, hertz=4e4):
    """Frequencies off by turns to both sides, by far more than on a device."""
    qubits = [
        qubit.model_copy(update={"detuning": hertz * (-1) ** index})
        for index, qubit in enumerate(device.qubits)
    ]
    return device.model_copy(update={"qubits": tuple(qubits)})


def one_of_each_kind(device):
    """A wait, an echo, pairs with and without a partner, and what is next to them."""
    found = {}
    for echo in (False, True):
        for site in injection_sites(device, [0, 2, 3, 4, 6], echo=echo):
            kind = site.kind, site.partner is None, site.next_to is None
            found.setdefault(kind, site)
    return list(found.values())


def compared(device, sites, readout):
    """⟨Z⟩ by PennyLane and by the table; three products of each site and count."""
    random = np.random.default_rng(0)
    counts = np.repeat([-3, 0, 2], 3)
    site, pairs = np.repeat(np.arange(len(sites)), len(counts)), np.tile(counts, len(sites))
    theta, phi = random.uniform(-np.pi, np.pi, (2, len(site)))
    engine = PennyLaneEngine(device, readout=readout)
    table = response_table(device, sites, max_pairs=3, readout=readout)
    found = engine.expectations(theta, phi, sites, site, pairs)
    return found, table.expectation(theta, phi, site, pairs)


@pytest.mark.parametrize("readout", ["twirled", "raw"])
@pytest.mark.parametrize("model", ["echoed", "static-zz"])
def test_equals_the_response_of_every_kind_of_word(model, readout):
    device = load_device(f"ibm_nairobi[crosstalk={model}]")
    sites = one_of_each_kind(device)
    assert len(sites) == 7
    found, expected = compared(device, sites, readout)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    assert np.ptp(expected) > 0.5


def test_equals_it_with_detuned_qubits_and_ecr_gates():
    """Detuning turns a waiting qubit; an ecr gate is another one, echoed on its control too."""
    nairobi = load_device("ibm_nairobi")
    ecr = nairobi.model_copy(update={"two_qubit_gate": "ecr"})
    sites = one_of_each_kind(detuned(nairobi))
    on_time, _ = compared(nairobi, sites, "twirled")
    for device in (detuned(nairobi), detuned(ecr)):
        found, expected = compared(device, sites, "twirled")
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
        assert abs(found - on_time).max() > 0.05


def test_long_words():
    device = load_device("ibm_nairobi")
    sites = [Site(0, 1, kind="wait"), Site(3, 1, 2), Site(2, 1, 3, next_to=0)]
    table = response_table(device, sites, max_pairs=20)
    random = np.random.default_rng(1)
    theta, phi = random.uniform(-np.pi, np.pi, (2, len(sites)))
    arguments = np.arange(len(sites)), np.array([20, -20, 20])
    found = PennyLaneEngine(device).expectations(theta, phi, sites, *arguments)
    expected = table.expectation(theta, phi, *arguments)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    plain = table.expectation(theta, phi, np.arange(len(sites)), np.zeros(3, int))
    assert abs(expected - plain).min() > 5e-4
