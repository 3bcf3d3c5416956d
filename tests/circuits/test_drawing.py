"""Drawings of products: what they show follows the crosstalk model of the device."""

import numpy as np
import pytest
from qiskit.quantum_info import Statevector

from qnad_art.circuits.drawing import circuit_drawings
from qnad_art.device.catalogue import load_device

ENCODED = "In order: sx on q0, rz on q0, sx on q0, rz on q0, "


@pytest.mark.parametrize(
    ("name", "gates", "caption"),
    [
        ("ibm_nairobi", "x on q1, delay on q1, x on q1, delay on q0, sx on q0", "waits, and is"),
        ("ibm_torino", "x on q1, delay on q2, cz on q1 and q2, cz on q1", "between q1 and q2"),
        ("ibm_nairobi[crosstalk=paper]", "cx on q0 and q1, parasitic_zz on q0 and q1", "rad"),
    ],
)
def test_crosstalk_is_drawn_as_the_device_runs_it(name, gates, caption):
    plain, injected = circuit_drawings(load_device(name))
    assert plain.gates == ENCODED + "sx on q0, measure on q0."
    assert injected.gates.startswith(ENCODED + gates)
    assert caption in injected.caption


def test_the_caption_says_the_turn_of_the_schedule():
    """The neighbour is in |1⟩ from the centre of one X to that of the other."""
    device = load_device("ibm_nairobi")
    _, injected = circuit_drawings(device)
    (wait,) = [
        step.operation.duration
        for step in injected.circuit.data
        if step.name == "delay" and step.qubits == (injected.circuit.qubits[1],)
    ]
    rate = 2 * np.pi * device.edge_of[device.native_gate(0, 1)].zz_hz
    turn = abs(rate) * (wait * 1e-9 + device.qubits[1].x_duration)
    assert f"by {turn:.3f} rad" in injected.caption


@pytest.mark.parametrize("name", ["ideal", "ibm_nairobi", "ibm_torino"])
def test_every_drawing_multiplies(name):
    theta, phi = 0.4, 1.1
    for drawing in circuit_drawings(load_device(name)):
        circuit = drawing.circuit.remove_final_measurements(inplace=False)
        bound = circuit.assign_parameters({"θ": theta, "φ": phi})
        zero, one = Statevector(bound).probabilities([0])
        assert zero - one == pytest.approx(np.sin(theta) * np.sin(phi), abs=1e-12)
