"""Every evasion attack of ART's on the noisy network, and the table of what ran.

``pytest -m slow tests/test_attack_table.py --write-attack-table`` writes the table's rows anew.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from art_attacks import ATTACKS, EPS, NOT_RUN, Attack, accepted_attacks, reproducible
from art_fixtures import images, network
from torch import Tensor, nn

from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.pretrained import load_pretrained

TABLE = Path(__file__).parents[2] / "evaluations" / "art-attacks.md"
HEAD = "| attack | ART's class | ε | expectation | shots | EOT | noise off |\n"
RULE = "| --- | --- | --- | --- | --- | --- | --- |\n"
DRAWS = 2
EXECUTIONS = {"expectation": (None, 1), "shots": (4096, 1), "EOT": (4096, DRAWS)}


class Victim(nn.Module):
    """A network in double precision, so that rounding decides nothing; as ART's attacks want it."""

    def __init__(self, network: nn.Module, attack: Attack, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.shape = network, shape
        self.probabilities = attack.probabilities

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x.reshape(-1, *self.shape).double())
        return (logits.softmax(1) if self.probabilities else logits).to(x.dtype)


@cache
def trained(name: str) -> nn.Module:
    plain = load_pretrained("lenet5-mnist").plain.model if name == "mnist5k" else network(name)
    return plain.double().eval()


def oracle(attack: Attack) -> PyTorchClassifier:
    """ART's own classifier."""
    name = "digits" if attack.small else "mnist5k"
    shape = images(name).x.shape[1:]
    given = (int(np.prod(shape)),) if attack.rows else shape
    model = Victim(trained(name), attack, shape)
    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), given, 10, clip_values=(0.0, 1.0), device_type="cpu"
    )


def hardened(attack: Attack, widened: int = 1, **settings: Any) -> QuantumExecutedClassifier:
    plain = oracle(attack)
    x = images("digits" if attack.small else "mnist5k", "train").x[:200]
    x = widened * x.reshape(len(x), *plain.input_shape)
    return QuantumExecutedClassifier.from_art(plain, x, seed=0, **settings)


def attacked(attack: Attack) -> tuple[np.ndarray, np.ndarray]:
    data = images("digits" if attack.small else "mnist5k")
    return data.x[: attack.count].copy(), data.y[: attack.count]


def outcome(attack: Attack, shots: int | None, draws: int) -> str:
    """``✓``, or what was wrong with the attack on a noisy network or its examples."""
    classifier = hardened(attack, shots=shots)
    target = classifier.averaged(draws) if draws > 1 else classifier
    passes: list[int] = []
    classifier.module.register_forward_hook(lambda *_: passes.append(1))
    x, y = attacked(attack)
    before = x.copy()
    draw = classifier.frozen_draw() if attack.frozen else nullcontext()
    with reproducible(), draw:
        found = attack.examples(target, x, y)
    if found.shape != x.shape:
        return f"shape {found.shape}"
    change = np.linalg.norm((found - before).reshape(len(x), -1), ord=attack.order, axis=1)
    wrong = {
        "not finite": not np.isfinite(found).all(),
        "leaves [0, 1]": found.min() < 0 or found.max() > 1,
        "leaves the ε-ball": attack.order is not None and change.max() > EPS + 1e-5,
        "changes nothing": not attack.weak and change.max() == 0,
        "changes its input": not np.array_equal(x, before),
        "misses the noisy network": not passes or len(passes) % draws > 0,
    }
    return ", ".join(what for what, holds in wrong.items() if holds) or "✓"


def without_noise(attack: Attack) -> str:
    """``same`` if a noiseless device gives what ART's own classifier gives."""
    found = []
    # Wide scales, since some attacks leave the range of the images on their way.
    for classifier in (oracle(attack), hardened(attack, 10, device="ideal")):
        x, y = attacked(attack)
        with reproducible():
            found.append(attack.examples(classifier, x, y))
    largest = float(np.abs(found[0] - found[1]).max())
    return "same" if largest <= 1e-5 else f"differs by {largest:.1g}"


def row(name: str, cells: list[str]) -> str:
    attack = ATTACKS[name]
    budget = {None: "", 2: "L2", np.inf: "L∞"}[attack.order]
    title = name + " *" * attack.small + " †" * attack.frozen
    return "| " + " | ".join([title, f"`{attack.art}`", budget, *cells]) + " |\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_the_row_of_the_table_says_how_the_attack_ran(name, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)  # GeoDA writes files
    attack = ATTACKS[name]
    cells = [outcome(attack, *execution) for execution in EXECUTIONS.values()]
    found = row(name, [*cells, without_noise(attack)])
    text = TABLE.read_text(encoding="utf-8")
    if request.config.getoption("write_attack_table"):
        start = re.escape(found[: found.index("|", found.index("`") + 1)])
        text, count = re.subn(f"^{start}.*\n", lambda _: found, text, flags=re.M)
        TABLE.write_text(text, encoding="utf-8")
        assert count == 1
    assert found in text
    assert set(cells) == {"✓"}
    assert found.endswith("| same |\n")


def test_the_table_has_a_row_for_every_attack_and_a_reason_for_the_others(request):
    text = TABLE.read_text(encoding="utf-8")
    start = text.index(HEAD + RULE) + len(HEAD + RULE)
    end = text.index("\n\n", start - 1) + 1
    rows = text[start:end].splitlines(keepends=True)
    if request.config.getoption("write_attack_table"):
        kept = {line.split(" |")[0].rstrip(" *†"): line for line in rows}
        rows = [kept.get(f"| {name}", row(name, 4 * ["not run"])) for name in ATTACKS]
        TABLE.write_text(text[:start] + "".join(rows) + text[end:], encoding="utf-8")
    assert [line.split(" |")[0].rstrip(" *†") for line in rows] == [f"| {n}" for n in ATTACKS]
    prose = re.sub(r"\s+", " ", text)
    for purpose in sorted(set(NOT_RUN.values())):
        names = ", ".join(f"`{name}`" for name, reason in NOT_RUN.items() if reason == purpose)
        assert f"{names} ({purpose})" in prose


def test_every_attack_that_art_would_run_is_run_or_left_out_for_a_reason():
    run = {attack.art for attack in ATTACKS.values()}
    assert accepted_attacks() | {"BrendelBethgeAttack"} == run | set(NOT_RUN)
    assert not run & set(NOT_RUN)


@pytest.mark.slow
def test_double_precision_leaves_nothing_to_rounding():
    attack = ATTACKS["PGD"]
    x, _ = attacked(attack)
    off, plain = hardened(attack, 10, device="ideal"), oracle(attack)
    assert next(off.model.parameters()).dtype == torch.float64
    np.testing.assert_allclose(off.predict(x), plain.predict(x), rtol=1e-6, atol=1e-6)
