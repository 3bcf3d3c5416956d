"""What each choice in tuned crosstalk buys: one setting changed at a time, on a validation split.

    python -m qnad_evaluations.studies.tuning_ablation lenet5.safetensors \
        --data mnist --data-dir DATA --output evaluations/results/tuning-ablation.json

Every variant tunes on the same training images and is scored, clean and under PGD-20, on the same
1,000 training images that tuning never sees. The test split is not read. A second run goes on.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from qnad_art import convert
from qnad_art.crosstalk.tuned import Tuned
from qnad_art.datasets.dataset import load_dataset
from qnad_art.files.atomic import read_json, write_json
from qnad_art.models.weights import load_model
from qnad_art.network.module import QuantumExecutedModule
from qnad_art.training.adversarial import perturb

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "codebook: one-hop edges": {"codebook": "one-hop"},
    "codebook: the placed edge": {"codebook": "placed"},
    "order: aware (no added steps)": {"order": "aware"},
    "scope: layer": {"scope": "layer"},
    "scope: global": {"scope": "global"},
    "ranked on clean images": {"ranked_on": "clean"},
    "criticality refreshed twice": {"refresh": 2},
    "headroom 1": {"headroom": 1.0},
    "biases classical": {"bias": "classical"},
    "max_pairs 4": {"max_pairs": 4},
    "fraction 0.1": {"fraction": 0.1},
    "fraction 1": {"fraction": 1.0},
}
BUDGETS = (0.1, 0.2, 0.3)
CONVERSION = ("order", "headroom", "bias")


def main(
    weights: Annotated[Path, typer.Argument(help="Weights of the plain network.")],
    output: Annotated[Path, typer.Option(help="JSON with all figures.")],
    data: Annotated[str, typer.Option(help="Data set.")] = "mnist",
    data_dir: Annotated[Path | None, typer.Option(help="Else QNAD_DATA_DIR.")] = None,
    images: Annotated[int, typer.Option(help="To tune on.")] = 4000,
    epochs: Annotated[int, typer.Option(help="Of tuning.")] = 8,
    headroom: Annotated[float, typer.Option(help="Of the default variant.")] = 1.5,
) -> None:
    """Run all variants that have no figures yet."""
    train = load_dataset(data, "train", data_dir=data_dir).take(images + 1000, seed=0)
    x, y = torch.tensor(train.x), torch.tensor(train.y)
    known = read_json(output) if output.exists() else {}
    for name, changes in VARIANTS.items():
        if name in known:
            continue
        conversion: dict[str, Any] = {"headroom": headroom, **Tuned.prefers}
        conversion |= {k: changes[k] for k in CONVERSION if k in changes}
        settings = {k: v for k, v in changes.items() if k not in CONVERSION}
        module = convert(load_model(weights), x[1000:1512], seed=0, **conversion)
        start = time.perf_counter()
        plan = Tuned(epochs=epochs, **settings).plan(module, x[1000:], y[1000:])
        module.plan = plan
        known[name] = {
            "achieved": plan.achieved,
            "seconds": round(time.perf_counter() - start, 1),
            **_scores(module, x[:1000], y[:1000]),
        }
        write_json(output, known)
        Console(soft_wrap=True).print(f"{name:35} {known[name]}")


def _scores(module: QuantumExecutedModule, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """Clean accuracy, and by budget under white-box PGD-20 with both kinds of gradients."""
    generator = torch.Generator().manual_seed(0)

    def right(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = module(images)
        return logits.argmax(1) == y

    holds = {f"PGD-20 {budget:g}": torch.ones_like(y, dtype=torch.bool) for budget in BUDGETS}
    for through in (nullcontext(), module.unsaturated_gradients()):
        with through:
            for budget, held in zip(BUDGETS, holds.values(), strict=True):
                held &= right(
                    perturb(
                        module, x, y, epsilon=budget, steps=20, clip=(0.0, 1.0), generator=generator
                    )
                )
    figures = {"clean": right(x), **holds}
    return {name: float(correct.double().mean()) for name, correct in figures.items()}


if __name__ == "__main__":
    typer.run(main)
