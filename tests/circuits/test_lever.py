"""The lever of devices, by hand and over the catalogue."""

import numpy as np
import pytest

from qnad_art.circuits.lever import ENOUGH, find_lever
from qnad_art.circuits.product import Site
from qnad_art.device.catalogue import device_names, load_device
from qnad_art.device.profile import default_crosstalk_model
from qnad_art.placement.placement import device_placement


@pytest.fixture(scope="module")
def profile():
    return load_device("ibm_nairobi[crosstalk=echoed]")


def seconds(profile, a, b):
    return 2 * profile.edge_of[profile.native_gate(a, b)].duration


def rate(profile, a, b):
    return 2 * np.pi * profile.edge_of[profile.native_gate(a, b)].zz_hz


def test_a_unit_and_the_reach_of_words_by_hand(profile):
    near, far = Site(0, 1, 3), Site(6, 5, 4)
    one = rate(profile, 0, 1) * seconds(profile, 1, 3) / 2  # the echo leaves half
    other = rate(profile, 6, 5) * seconds(profile, 5, 4) / 2
    lever = find_lever(profile, [Site(0), near, Site(6), far], max_pairs=3)
    assert lever.unit == pytest.approx((one + other) / 2)
    assert lever.reach == pytest.approx(3 * (one + other) / 2)
    assert lever.largest == pytest.approx(3 * max(one, other))


def test_a_pair_on_the_own_edge_and_a_site_next_to_a_word_do_not_count(profile):
    useless = [Site(0, 1), Site(2, 1, kind="wait", next_to=0)]
    assert find_lever(profile, [Site(0), *useless]).strength == "none"
    lever = find_lever(profile, [*useless, Site(0, 1, 3)])
    assert lever == find_lever(profile, [Site(0, 1, 3)])


def test_words_that_turn_too_far_do_not_count(profile):
    site = Site(0, 1, 3)
    free, unit = find_lever(profile, [site]), find_lever(profile, [site], max_pairs=1).reach
    assert free.largest == pytest.approx(8 * unit)
    assert find_lever(profile, [site], max_turn=4.5 * unit).largest == pytest.approx(4 * unit)
    assert find_lever(profile, [site], max_turn=unit / 2).strength == "none"


def test_a_qubit_without_a_neighbour_that_turns_it_reaches_nothing(profile):
    lever = find_lever(profile, [Site(0), Site(2), Site(6), Site(0, 1, 3)])
    assert lever.largest > ENOUGH
    assert (lever.reach, lever.strength) == (0.0, "weak")


def test_no_sites_are_no_lever(profile):
    assert find_lever(profile, []).strength == "none"


@pytest.mark.slow
def test_the_threshold_lies_in_the_gap_between_tunable_and_fixed_couplers():
    for name in set(device_names()) - {"ideal", "ibm_nighthawk"}:  # it warns when it is read
        device = load_device(name)
        model = default_crosstalk_model(device.two_qubit_gate)
        device = device.model_copy(update={"crosstalk_model": model})
        lever = find_lever(device, device_placement(device).sites)
        if not any(edge.zz_hz for edge in device.edges):
            assert lever.strength == "none", name
        elif device.two_qubit_gate == "cz":
            assert 0.03 < lever.reach < 0.7 * ENOUGH, name
        else:
            assert lever.reach > 3 * ENOUGH, name


def test_default_models_by_gate(nairobi):
    models = [default_crosstalk_model(gate) for gate in ("cx", "ecr", "cz")]
    assert models == ["echoed", "echoed", "static-zz"]
    assert {nairobi.changed({}, crosstalk_model=name).crosstalk_model for name in models} == {
        *models
    }
