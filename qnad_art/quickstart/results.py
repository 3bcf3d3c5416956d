"""Settings and results of the quickstart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qnad_art.crosstalk.criticality import FRACTION
from qnad_art.device.profile import DEFAULT_DEVICE
from qnad_art.network.settings import ExecutionSettings

NETWORKS = ("plain", "noise", "uniform crosstalk", "tuned crosstalk")
ATTACKS = ("FGSM", "PGD")
RUNGS = ("transfer", "white-box")


@dataclass(frozen=True)
class QuickstartSettings:
    """Settings of the quickstart.

    Args:
        device: name or JSON file of the quantum device.
        shots: shots per product; ``None`` means the exact expectation.
        fraction: fraction of the weights to put under crosstalk.
        headroom: headroom of the weights' scale for the tuned strategy, which may raise the
            largest weights; uniform crosstalk does not need it.
        tuning_epochs, tuning_images: epochs and images of the tuned strategy; few epochs, because
            the quickstart should take two minutes.
        epsilons: L∞ budgets of the attacks, for pixels in [0, 1].
        pgd_steps: number of PGD steps, each of size ε/4.
        epochs: training epochs.
        test_images: number of the 1,000 test images to attack.
        seed: seed of everything random.
    """

    device: str = DEFAULT_DEVICE
    shots: int | None = None
    fraction: float = FRACTION
    headroom: float = 1.5
    tuning_epochs: int = 10
    tuning_images: int = 4000
    epsilons: tuple[float, ...] = (0.1, 0.2, 0.3)
    pgd_steps: int = 10
    epochs: int = 15
    test_images: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        self.execution()

    def execution(self) -> ExecutionSettings:
        """Execution settings of the noisy networks; raises for invalid values."""
        return ExecutionSettings(device=self.device, shots=self.shots, seed=self.seed)

    @classmethod
    def fast(cls, **changes: Any) -> QuickstartSettings:
        """Settings of a run of about a minute, with fewer epochs, images and budgets."""
        small: dict[str, Any] = {
            "epsilons": (0.1, 0.3),
            "epochs": 6,
            "test_images": 300,
            "pgd_steps": 5,
            "tuning_epochs": 8,
            "tuning_images": 2000,
        }
        return cls(**{**small, **changes})


@dataclass(frozen=True)
class Accuracy:
    """One measured cell; ``attack`` and ``rung`` are empty for clean accuracy (``epsilon`` 0).

    ``accuracy`` is measured on ``images`` images and one noise draw. ``low`` and ``high`` are its
    95 % Wilson interval.
    """

    network: str
    attack: str
    rung: str
    epsilon: float
    accuracy: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class QuickstartResult:
    """All results of the quickstart, which are written as JSON in addition to the figure."""

    settings: QuickstartSettings
    data: str
    device_hash: str
    crosstalk_model: str
    zz_source: str
    products_per_image: int
    products_with_biases: int
    crosstalk_achieved: dict[str, float]
    versions: dict[str, str]
    cells: list[Accuracy] = field(default_factory=list)

    def cell(self, network: str, attack: str = "", rung: str = "", epsilon: float = 0) -> Accuracy:
        """The measured cell with these coordinates."""
        wanted = (network, attack, rung, epsilon)
        return next(c for c in self.cells if (c.network, c.attack, c.rung, c.epsilon) == wanted)
