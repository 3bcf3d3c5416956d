"""Drawings of product circuits for reports."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qnad_art.circuits.product import Site, product_circuit

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
    """The product circuit on ``device`` without crosstalk and with one injected gate pair."""
    from qiskit.circuit import Parameter

    angles = {"theta": Parameter("θ"), "phi": Parameter("φ")}
    site = next((Site(q, near[0]) for q, near in enumerate(device.neighbours) if near), None)
    bare = Site(site.qubit) if site else Site(0)
    drawings = [
        Drawing(
            "circuit-plain",
            "One product without crosstalk",
            f"Qubit {bare.qubit} of {device.name} multiplies an activation, as angle θ, by a "
            "weight, as angle φ: without noise the mean of the measured ±1 is sin θ · sin φ.",
            product_circuit(device, bare, 0, **angles),
        )
    ]
    if site is not None:
        drawings.append(
            Drawing(
                "circuit-crosstalk",
                "The same product with one injected gate pair",
                f"q0 is qubit {site.qubit} of {device.name}, q1 its neighbour {site.neighbour}. "
                f"The two {device.two_qubit_gate} gates cancel except for their noise and the "
                "always-on coupling of the two qubits, drawn as parasitic_zz with its angle in "
                "rad.",
                product_circuit(device, site, 1, **angles),
            )
        )
    return drawings
