"""Schedules with explicit delays, as a device runs them."""

import numpy as np
import pytest
from qiskit import QuantumCircuit

from qnad_art.circuits.timeline import Operation, append_schedule

MANY = [Operation("x", (4,), 10.3e-9 * number, 2e-9) for number in range(1, 40)]
"""On qubit 4, at times of which hardly any is on a grid of 4 ns."""


def starts(circuit, unit, lasting):
    """Seconds at which each X begins, and the end, by the delays alone."""
    time, found = 0.0, []
    for step in circuit.data:
        if step.name == "x":
            found.append(time)
            time += lasting
        else:
            time += step.operation.duration * unit
    return np.array(found), time


@pytest.mark.parametrize(("step", "off"), [(None, 1e-15), (2, 2e-9)])
def test_roundings_do_not_add_up(step, off):
    """The grid is 4 ns: each operation begins within half of that of its time."""
    tick = {None: 1.0, 2: 2e-9}[step]
    circuit = QuantumCircuit(2)
    unit = "s" if step is None else "dt"
    append_schedule(circuit, MANY, qubits=[6, 4], until=500e-9, unit=unit, tick=tick, step=step)
    found, end = starts(circuit, tick, 2e-9)
    assert abs(found - [o.start for o in MANY]).max() <= off * 1.001
    assert end == pytest.approx(500e-9, abs=off * 1.001)
    assert {circuit.find_bit(q).index for step in circuit.data for q in step.qubits} == {1}


def test_a_gate_waits_for_both_of_its_qubits():
    operations = [
        Operation("x", (0,), 0.0, 3e-8),
        Operation("delay", (1,), 0.0, 5e-8),
        Operation("cx", (0, 1), 5e-8, 1e-7),
        Operation("rz", (1,), 1.5e-7, angle=0.25),
    ]
    circuit = QuantumCircuit(2)
    append_schedule(circuit, operations, qubits=[0, 1], until=2e-7, unit="ns", tick=1e-9, step=1)
    seen = [
        (step.name, *(circuit.find_bit(q).index for q in step.qubits), *step.operation.params)
        for step in circuit.data
    ]
    assert seen == [
        ("x", 0),
        ("delay", 0, 20),
        ("delay", 1, 50),
        ("cx", 0, 1),
        ("rz", 1, 0.25),
        ("delay", 0, 50),
        ("delay", 1, 50),
    ]
