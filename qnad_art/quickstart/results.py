"""What the quickstart runs, and what it finds out."""

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
    """What the quickstart runs.

    Args:
        device: name or JSON file of the quantum device.
        shots: shots a product, ``None`` for the exact expectation.
        fraction: of the weights to put under crosstalk.
        headroom: of the weights' scale, for the tuned strategy: room to raise the largest weights,
            which uniform crosstalk has no use for.
        tuning_epochs, tuning_images: of the tuned strategy: fewer epochs than its own default,
            because the quickstart should take two minutes.
        epsilons: L∞ budgets of the attacks, pixels in [0, 1].
        pgd_steps: steps of PGD, each of ε/4.
        epochs: of training.
        test_images: how many of the 1,000 test images are attacked.
        seed: of everything.
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
        """Of the noisy networks; raises for what it cannot be."""
        return ExecutionSettings(device=self.device, shots=self.shots, seed=self.seed)

    @classmethod
    def fast(cls, **changes: Any) -> QuickstartSettings:
        """A run of about a minute: fewer epochs, images and budgets."""
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
    """One measured cell: ``attack`` and ``rung`` are empty for clean accuracy (``epsilon`` 0).

    ``accuracy`` with its 95 % Wilson interval ``low`` to ``high``, on ``images`` images and one
    noise draw.
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
    """Everything the quickstart found out; written as JSON beside the figure."""

    settings: QuickstartSettings
    data: str
    device_hash: str
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
