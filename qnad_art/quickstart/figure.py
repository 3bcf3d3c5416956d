"""The figure of the quickstart."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from qnad_art.quickstart.results import ATTACKS, NETWORKS, RUNGS, QuickstartResult


def quickstart_figure(result: QuickstartResult) -> bytes:
    """Plot accuracy against ε, with one panel per attack and rung, as PNG."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    panels = figure.subplots(len(ATTACKS), len(RUNGS), sharex=True, sharey=True, squeeze=False)
    styles = (("#555555", "o"), ("#0072b2", "s"), ("#d55e00", "^"), ("#009e73", "D"))
    for row, attack in zip(panels, ATTACKS, strict=True):
        for axes, rung in zip(row, RUNGS, strict=True):
            for network, (colour, marker) in zip(NETWORKS, styles, strict=True):
                cells = [result.cell(network)] + [
                    result.cell(network, attack, rung, e) for e in result.settings.epsilons
                ]
                low = [100 * (c.accuracy - c.low) for c in cells]
                high = [100 * (c.high - c.accuracy) for c in cells]
                axes.errorbar(
                    [c.epsilon for c in cells],
                    [100 * c.accuracy for c in cells],
                    yerr=[low, high],
                    label=network,
                    color=colour,
                    marker=marker,
                    markersize=5,
                    capsize=2,
                )
            axes.set_title(f"{attack}, {rung}")
            axes.grid(alpha=0.3)
            axes.set_ylim(0, 101)
    for axes in panels[-1]:
        axes.set_xlabel("L∞ budget ε")
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy (%)")
    panels[0, 0].legend(loc="lower left")
    figure.suptitle(
        f"LeNet-5 on mnist5k as circuits of {result.settings.device}, crosstalk model "
        f"{result.crosstalk_model}\n"
        f"{result.cells[0].images} test images, 95 % Wilson intervals"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
