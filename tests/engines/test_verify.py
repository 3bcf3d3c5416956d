import dataclasses

import numpy as np
import pytest

from qnad_art.circuits.response import ResponseTable
from qnad_art.device.catalogue import load_device
from qnad_art.engines.aer import AerEngine
from qnad_art.engines.verify import verify_device
from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_art.layers.mappings import Linear


@pytest.mark.parametrize("device", ["ideal", "ibm_nairobi"])
@pytest.mark.parametrize("readout", ["twirled", "raw"])
def test_devices_pass(device, readout):
    result = verify_device(load_device(device), products=30, readout=readout, shots=2048)
    assert result.passed
    assert result.largest_difference < 1e-12
    assert result.largest_z is not None
    assert result.largest_z < 5


@pytest.mark.parametrize("mapping", ["arcsine", "linear"])
def test_products_of_every_mapping_pass(mapping):
    device = load_device("ibm_nairobi")
    result = verify_device(device, products=30, mapping=mapping, shots=None, max_pairs=2)
    assert result.largest_difference < 1e-12


def test_angles_of_another_mapping_are_found(monkeypatch):
    monkeypatch.setattr(Linear, "theta", lambda self, x: np.arcsin(x))
    device = load_device("ibm_nairobi")
    result = verify_device(device, products=30, mapping="linear", shots=None, max_pairs=0)
    assert not result.passed
    assert result.largest_difference > 1e-2


def test_a_wrong_table_is_found(monkeypatch):
    """A relative error of 1 % in the compiled products fails both comparisons."""
    right = ResponseTable.bilinear

    def wrong(self, *arguments):
        return 0.99 * right(self, *arguments) + 0.01

    monkeypatch.setattr(ResponseTable, "bilinear", wrong)
    result = verify_device(load_device("ibm_nairobi"), products=200, shots=4096)
    assert not result.passed
    assert result.largest_difference > 1e-3
    assert result.chi2_p_value < 1e-4
    lenient = dataclasses.replace(result, tolerance=1.0)
    assert not lenient.passed


def test_the_draw_is_seeded():
    device = load_device("ibm_nairobi")
    first, again, other = (
        verify_device(device, products=10, shots=256, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.largest_z != other.largest_z


def test_without_counts():
    result = verify_device(load_device("ideal"), products=5, shots=None)
    assert result.passed
    assert result.chi2_p_value is None
    assert np.isfinite(result.largest_difference)


def test_nothing_to_compare_is_refused():
    with pytest.raises(InvalidInputError, match="at least 1"):
        verify_device(load_device("ideal"), products=0)


def test_an_engine_that_only_counts_is_compared_by_counts(monkeypatch):
    monkeypatch.setattr(AerEngine, "exact", False)
    result = verify_device(load_device("ibm_nairobi"), products=30, shots=1024)
    assert result.passed
    assert result.largest_difference is None
    assert not dataclasses.replace(result, chi2_p_value=1e-6).passed
    with pytest.raises(InvalidInputError, match="only counts: give shots"):
        verify_device(load_device("ideal"), shots=None)


def test_unknown_engines_are_refused():
    with pytest.raises(UnknownNameError, match=r"'abacus'.*aer"):
        verify_device(load_device("ideal"), engine="abacus")
