"""The settings of an execution: defaults, rules, and who takes them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from art_fixtures import images, plain
from torch import nn

from qnad_art import QNAD, QuantumExecutedClassifier, convert
from qnad_art.device.catalogue import load_device
from qnad_art.errors import InvalidInputError, UnknownNameError
from qnad_art.network.settings import ExecutionSettings

UNLIKE_THE_DEFAULTS = {
    "device": "ibm_lima",
    "shots": 77,
    "readout": "raw",
    "gain": "raw",
    "headroom": 1.25,
    "bias": "quantum",
    "mapping": "linear",
    "percentile": 99.0,
    "include": ("*",),
    "exclude": ("0",),
    "order": "aware",
    "compute": (0, 2),
    "max_pairs": 3,
    "seed": 5,
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def x() -> torch.Tensor:
    return torch.rand(16, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"shots": 0}, "whole number from 1"),
        ({"readout": "loud"}, "twirled, raw"),
        ({"gain": "loud"}, "calibrated, raw"),
        ({"headroom": 0.5}, "1 or more"),
        ({"bias": "both"}, "classical, quantum"),
        ({"percentile": 0}, r"\(0, 100\]"),
        ({"include": "features.*"}, r"give a list: \['features.\*'\]"),
        ({"order": "any"}, "stretched, aware, plain"),
        ({"max_pairs": 128}, "0 to 127"),
        ({"allocation": "fair"}, "margin, equal"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused_as_the_settings_are_made(wrong, says):
    with pytest.raises(InvalidInputError, match=says):
        ExecutionSettings(**wrong)


def test_an_unknown_mapping_is_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'linear'"):
        ExecutionSettings(mapping="linaer")


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        ExecutionSettings().shots = 3


def test_settings_and_keywords_give_the_same_network():
    by_name = convert(network(), x(), **UNLIKE_THE_DEFAULTS)
    by_object = convert(network(), x(), settings=ExecutionSettings(**UNLIKE_THE_DEFAULTS))
    assert torch.equal(by_name(x()), by_object(x()))
    assert list(by_object.layers) == ["2", "4"]


def test_keywords_override_settings():
    settings = ExecutionSettings(shots=10, gain="raw")
    module = convert(network(), x(), settings=settings, shots=20)
    assert (module.shots, module.gain) == (20, "raw")
    with pytest.raises(UnknownNameError, match="Did you mean 'shots'"):
        convert(network(), x(), settings=settings, shot=20)


def test_a_network_tells_the_settings_that_run_it_the_same():
    module = convert(network(), x(), **UNLIKE_THE_DEFAULTS)
    told = module.settings
    assert told.device == load_device("ibm_lima")
    told_again = ("shots", "readout", "gain", "headroom", "bias", "mapping", "order", "compute")
    for name in (*told_again, "max_pairs"):
        assert getattr(told, name) == UNLIKE_THE_DEFAULTS[name]
    again = convert(
        network(), x(), settings=replace(told, seed=5, percentile=99.0, allocation=None)
    )
    module.noise.reseed(5)
    assert torch.equal(module(x()), again(x()))
    module.shots = None
    assert module.settings.shots is None


def test_all_settings_stand_in_a_line():
    line = str(ExecutionSettings(device=load_device("ideal"), exclude=["a", "b"], shots=9))
    for part in ("device=ideal", "shots=9", "mapping=arcsine", "exclude=a,b", "max_pairs=None"):
        assert part in line


def test_shots_are_divided_where_it_is_asked_for_and_only_there():
    data = images().x[:64]
    equal = QuantumExecutedClassifier.from_art(plain(), data, shots=64, seed=0)
    assert equal.module.settings.allocation == "equal"
    divided = QuantumExecutedClassifier.from_art(
        plain(), data, shots=64, seed=0, allocation="margin"
    )
    assert divided.module.settings.allocation == "margin"
    with pytest.raises(InvalidInputError, match="allocate_shots"):
        convert(network(), x(), shots=64, allocation="margin")


def test_the_defence_takes_settings_and_offers_each_as_a_parameter():
    settings = ExecutionSettings(device="ibm_lima", shots=32, seed=0)
    defence = QNAD(plain(), settings=settings, shots=16, fraction=0.2)
    assert (defence.device, defence.shots, defence.allocation) == ("ibm_lima", 16, "margin")
    assert settings.shots == 32
    defence.set_params(shots=8, settings=replace(defence.settings, shots=4))
    assert defence.settings.shots == defence.shots == 4
    defence.shots = 3
    assert defence.settings.shots == 3
    with pytest.raises(InvalidInputError, match="whole number"):
        defence.set_params(headroom=2.0, shots=0)
    assert (defence.headroom, defence.shots) == (1.0, 3)
    assert all(hasattr(defence, name) for name in defence.params)


def test_what_a_strategy_prefers_holds_where_the_user_leaves_the_choice():
    assert QNAD(plain(), strategy="tuned").execution.bias == "quantum"
    assert QNAD(plain(), strategy="tuned", bias="classical").execution.bias == "classical"
    assert QNAD(plain(), strategy="uniform").execution.bias is None
    assert QNAD(plain(), settings=ExecutionSettings(), strategy="tuned").execution.bias == "quantum"
