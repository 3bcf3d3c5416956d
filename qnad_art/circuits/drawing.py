"""Drawings of product circuits for reports."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qnad_art.circuits.crosstalk_models import crosstalk_model
from qnad_art.circuits.injection import injection_sites, phase_turn
from qnad_art.circuits.product import Site, product_circuit
from qnad_art.circuits.timed import end_seconds, product_operations
from qnad_art.circuits.timeline import SHORTEST, append_schedule, shifted

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from qnad_art.device.profile import DeviceProfile

Theme = Literal["light", "dark"]
Extension = Literal["png", "svg"]


@dataclass(frozen=True)
class Drawing:
    """A circuit to draw; ``gates`` describes it in words for readers who cannot see the drawing."""

    key: str
    title: str
    caption: str
    circuit: QuantumCircuit

    @property
    def gates(self) -> str:
        """The instructions in order, each with the qubits on which it acts."""
        place = {qubit: f"q{index}" for index, qubit in enumerate(self.circuit.qubits)}
        steps = []
        for step in self.circuit.data:
            if step.name != "barrier":
                qubits = " and ".join(place[qubit] for qubit in step.qubits)
                steps.append(f"{step.operation.label or step.name} on {qubits}")
        return f"In order: {', '.join(steps)}."

    def image(self, theme: Theme = "light", extension: Extension = "svg") -> bytes:
        """Qiskit's drawing."""
        from matplotlib import pyplot, rc_context

        style = {"name": "iqp" if theme == "light" else "iqp-dark"}
        facts = {"Date": None} if extension == "svg" else {}
        buffer = io.BytesIO()
        with rc_context({"svg.hashsalt": self.key}):
            figure = self.circuit.draw("mpl", style=style, fold=-1)
            figure.savefig(buffer, format=extension, dpi=150, bbox_inches="tight", metadata=facts)
            pyplot.close(figure)  # Qiskit draws with pyplot, which keeps figures open
        return buffer.getvalue()


def circuit_drawings(device: DeviceProfile) -> list[Drawing]:
    """The product circuit on ``device`` without crosstalk and with one unit of it.

    Under the crosstalk model of the device: of a model in time the schedule is drawn, with delays.
    """
    model = crosstalk_model(device)
    site = next(iter(injection_sites(device, range(len(device.qubits)))), None)
    bare = Site(site.qubit) if site else Site(0)
    drawings = [
        Drawing(
            "circuit-plain",
            "One product without crosstalk",
            f"Qubit {bare.qubit} of {device.name} multiplies an activation, as angle θ, by a "
            "weight, as angle φ: without noise the mean of the measured ±1 is sin θ · sin φ.",
            _circuit(device, bare, 0),
        )
    ]
    if site is not None:
        where = f"q0 is qubit {site.qubit} of {device.name}, q1 its neighbour {site.neighbour}"
        if not model.timed:
            title = "The same product with one injected gate pair"
            caption = (
                f"{where}. The two {device.two_qubit_gate} gates cancel except for their noise and "
                "the always-on coupling of the two qubits, drawn as parasitic_zz with its angle in "
                "rad."
            )
        else:
            title, caption = _in_time(device, site, where)
        drawings.append(Drawing("circuit-crosstalk", title, caption, _circuit(device, site, 1)))
    return drawings


def _in_time(device: DeviceProfile, site: Site, where: str) -> tuple[str, str]:
    """Title and caption of a product with one unit of crosstalk, under a model in time."""
    turn = abs(phase_turn(device, site, 1))
    if site.kind != "pairs":
        title = "The same product next to a neighbour that waits in |1⟩"
        what = f"{where}. The neighbour is put into |1⟩, waits, and is put back."
    else:
        title = "The same product with one pair of gates next to it"
        partner = "q0" if site.partner is None else f"q2, its neighbour {site.partner}"
        what = f"{where}; the pair of {device.two_qubit_gate} gates is between q1 and {partner}."
    return title, (
        f"{what} Meanwhile the always-on coupling of q0 and q1, which is not drawn, turns the "
        f"weight's phase by {turn:.3f} rad. The three parts follow one another; delays are in "
        "ns. In the last one all other products of the time step run."
    )


def _circuit(device: DeviceProfile, site: Site, count: int) -> QuantumCircuit:
    """A product and its word as instructions, with the measurement."""
    from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
    from qiskit.circuit import Parameter

    model = crosstalk_model(device)
    theta, phi = Parameter("θ"), Parameter("φ")
    if not model.timed or not count:
        return product_circuit(device, site, count, theta=theta, phi=phi)
    operations, opens = product_operations(
        device, site, count, theta=theta, phi=phi, model=model, flip=False
    )
    qubits = QuantumRegister(len(site.qubits), "q")
    circuit = QuantumCircuit(qubits, ClassicalRegister(1, "c"))
    begins = 2 * device.qubits[site.qubit].sx_duration
    parts = itertools.pairwise((0.0, begins, opens, end_seconds(device, opens, flip=False)))
    for start, end in parts:
        here = [o for o in operations if o.end <= end + SHORTEST]
        operations = [o for o in operations if o not in here]
        append_schedule(
            circuit,
            shifted(here, -start),
            qubits=site.qubits,
            until=end - start,
            unit="ns",
            tick=1e-9,
            step=1,
        )
        circuit.barrier()
    circuit.measure(0, 0)
    return circuit
