"""The audit: planted cheats fail, honest networks pass, and cells are compared as they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.defences.preprocessor import FeatureSqueezing
from torch import nn
from victims import QUICK, NoisyPredict, classifier, digits, network, noisy, quantum

from qnad_art.benchmark.audit.audit import audit_cell, audit_results, unreliable
from qnad_art.benchmark.audit.gates import gradients_exist, noise_in_gradients
from qnad_art.benchmark.audit.planted import planted_examples
from qnad_art.benchmark.audit.probes import Probe
from qnad_art.benchmark.records import Bits, Cell, CurvePoint, Gate, Interval, Provenance, Result
from qnad_art.benchmark.run.cell import measure
from qnad_art.layers.noise_source import NoiseSource

X, Y = digits().x[:30], digits().y[:30]
BRIEF = QUICK.model_copy(update={"draws": 3, "selection_draws": 2})
PROVENANCE = Provenance(
    device_hash=None, shots=None, plan=None, data_hash="d", weights_hash="w", seed=0, versions={}
)
OWN_GATES = 10


class Wrapped(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


class RoundedInput(Wrapped):
    def forward(self, x):
        return self.module(torch.round(4 * x) / 4)


class RoundedLogits(Wrapped):
    def forward(self, x):
        return torch.round(10 * self.module(x)) / 10


class Constant(Wrapped):
    def forward(self, x):
        return 0 * self.module(x) + torch.eye(10)[3]


class CutGraph(Wrapped):
    def forward(self, x):
        return self.module(x.detach())


class NoiselessGradients(Wrapped):
    """No noise in passes that are differentiated."""

    def __init__(self, module):
        super().__init__(module)
        self.noise = NoiseSource(0)

    def forward(self, x):
        with self.noise.forward_pass():
            return self.module(x if x.requires_grad else x + 0.2 * self.noise.normal_like(x))


class NoNumbers(Wrapped):
    """Chosen forwards, spoiled backwards: the branch not taken has no derivative."""

    def forward(self, x):
        bright = torch.where(x > 0.9, torch.sqrt(x - 0.9), 0)
        return self.module(x) + 0 * bright.sum((1, 2, 3))[:, None]


def audited(victim):
    found = {gate.name: gate for gate in audit_cell(victim, X, Y, BRIEF, 0)}
    assert len(found) == OWN_GATES
    return found


def failed(gates):
    return set(unreliable(gates.values()))


@pytest.mark.parametrize(
    "build",
    [
        classifier,
        lambda: classifier(network(epsilon=0.15)),
        lambda: noisy(0.2),
        lambda: quantum(shots=None),
        lambda: quantum(shots=4096),
        lambda: quantum(shots=None, percentile=90),
        lambda: classifier(
            preprocessing_defences=FeatureSqueezing(clip_values=(0.0, 1.0), bit_depth=4)
        ),
    ],
    ids=[
        *("undefended", "adversarially trained", "input noise", "expectation", "shots"),
        *("saturating", "preprocessing that attacks know"),
    ],
)
def test_honest_defences_pass(build):
    gates = audited(build())
    assert not failed(gates)
    ran = [gate.name for gate in gates.values() if gate.verdict == "pass"]
    assert len(ran) >= OWN_GATES - 2
    assert gates["unbounded ε"].figures["accuracy"] <= 0.15
    assert all(gate.demand for gate in gates.values())


@pytest.mark.parametrize("cheat", [RoundedInput, RoundedLogits])
def test_masked_gradients_are_caught(cheat):
    gates = audited(classifier(cheat(network())))
    assert {"gradients", "unbounded ε", "planted examples"} <= failed(gates)
    assert gates["gradients"].figures["share zero"] == 1
    assert gates["planted examples"].figures["found"] < 0.2
    assert "more" not in gates["planted examples"].reason


def test_noise_only_in_predict_is_caught():
    gates = audited(classifier(kind=NoisyPredict))
    assert failed(gates) == {"noise in the gradients' pass"}
    figures = gates["noise in the gradients' pass"].figures
    assert figures["noise of predict"] > 0.5
    assert figures["noise of the module"] == 0


def test_constant_logits_are_caught():
    gates = audited(classifier(Constant(network())))
    assert {"predictions vary", "gradients"} <= failed(gates)
    assert gates["unbounded ε"].verdict == "pass"  # accuracy at chance hides them from this gate


def test_gradients_of_one_draw_are_caught():
    gate = noise_in_gradients(Probe(classifier(NoiselessGradients(network())), X, Y, QUICK, 0))
    assert gate.verdict == "fail"
    assert "gradients have none" in gate.reason


def test_gradients_that_are_no_numbers_are_caught():
    gate = gradients_exist(Probe(classifier(NoNumbers(network())), X, Y, QUICK, 0))
    assert gate.verdict == "fail"
    assert gate.figures["share NaN or infinite"] > 0.5


def test_a_cut_graph_is_caught_and_the_rest_not_run():
    gates = audited(classifier(CutGraph(network())))
    assert failed(gates) == {"gradients"}
    not_run = [gate for gate in gates.values() if gate.verdict == "not run"]
    assert len(not_run) == 7
    assert all("no gradients" in gate.reason for gate in not_run)


def test_signal_to_noise_ratio_falls_with_noise():
    quiet, loud, none = (
        gradients_exist(Probe(victim, X, Y, QUICK, 0)).figures["signal-to-noise ratio"]
        for victim in (noisy(0.05), noisy(0.5), classifier())
    )
    assert quiet > 3 * loud > 0
    assert none is None


def test_verdicts_do_not_depend_on_what_ran_before():
    victim = noisy()
    first = audit_cell(victim, X[:10], Y[:10], BRIEF, 3)
    victim.predict(X)
    assert audit_cell(victim, X[:10], Y[:10], BRIEF, 3) == first


def test_attacks_find_what_is_planted_and_guessing_does_not():
    found = planted_examples(Probe(classifier(), X, Y, QUICK, 0), 0.1)
    assert found.images == 24
    assert found.found == 1
    assert found.guessed < 0.3


def test_an_audit_cell_has_gates_and_figures_of_clean_images():
    where = {"model": "m", "data": "d", "device": "v", "defence": "none", "seed": 0}
    protocol = QUICK.model_copy(update={"audit_images": 20})
    found = measure(
        classifier(),
        classifier(),
        Cell(kind="audit", **where),
        None,
        X,
        Y,
        protocol=protocol,
        seed=0,
    )
    assert found.images == 20
    assert len(found.gates) == OWN_GATES
    assert found.accuracy.value == (classifier().predict(X[:20]).argmax(1) == Y[:20]).mean()


# --- comparing cells ------------------------------------------------------------------------------


def result(accuracy, *, kind="attack", seed=0, images=200, **more):
    """A cell in which image i is right in every draw if its difficulty allows it."""
    in_cell = {name: more.pop(name) for name in ("attack", "eps", "rung") if name in more}
    where = {"model": "m", "data": "d", "device": "v", "defence": "q", "seed": 0}
    if kind == "attack":
        in_cell = {"attack": "pgd", "eps": 0.1, "rung": "white-box", **in_cell}
        more = {"norm": "inf", **more}
    order = np.random.default_rng(seed).permutation(images)
    correct = np.broadcast_to(order < accuracy * images, (3, images))
    value = Interval(value=correct.mean(), low=0, high=1)
    return Result(
        key=str(accuracy),
        cell=Cell(kind=kind, **where, **in_cell),
        accuracy=value,
        majority=value,
        every_draw=value,
        images=images,
        draws=3,
        correct=Bits.pack(correct),
        votes=Bits.pack(correct[0]),
        seconds=1,
        provenance=PROVENANCE,
        **more,
    )


def compared(*results):
    ((where, gates),) = audit_results(results).items()
    assert where == ("m", "d", "v", "q", 0)
    return {gate.name: gate for gate in gates}


HONEST = [
    result(0.95, kind="clean"),
    *(
        result(accuracy, eps=eps, rung=rung)
        for rung, accuracies in {
            "transfer": (0.8, 0.6),
            "white-box": (0.7, 0.4),
            "adaptive": (0.6, 0.3),
        }.items()
        for eps, accuracy in zip((0.1, 0.2), accuracies, strict=True)
    ),
    result(0.75, attack="fgsm", single_step=True),
    result(0.8, attack="square", rung="black-box"),
]


def test_honest_cells_pass_and_an_audit_that_did_not_run_is_said():
    gates = compared(*HONEST)
    assert not failed(gates)
    assert gates["cells: falls in ε"].verdict == "pass"
    assert gates["white-box against transfer"].figures["comparisons"] == 2
    assert gates["unbounded ε"].verdict == "not run"
    assert gates["cells: falls in EOT samples"].verdict == "not run"
    assert sum(gate.verdict == "not run" for gate in gates.values()) == OWN_GATES + 1


@pytest.mark.parametrize(
    ("cell", "gate"),
    [
        (result(0.6, eps=0.3), "cells: falls in ε"),
        (result(0.99, attack="deepfool", eps=0.4), None),  # within tolerance of nothing: one cell
        (result(0.3, attack="fgsm", single_step=True), "cells: iterative against single-step"),
        (result(0.3, eps=0.2, rung="transfer", attack="bim"), None),  # nothing to compare it with
        (result(0.2, eps=0.1, rung="transfer"), "white-box against transfer"),
        (result(0.2, eps=0.1, rung="transfer"), "adaptive against transfer"),
        (result(0.2, attack="hop", rung="black-box"), "white-box against black-box"),
        (result(0.2, attack="hop", rung="black-box", norm="2"), None),  # another ball
        (result(0.2, attack="hop", eps=None, norm=None, rung="black-box"), None),
    ],
)
def test_what_is_stronger_than_it_may_be_is_caught(cell, gate):
    others = [r for r in HONEST if r.cell != cell.cell]
    gates = compared(*others, cell)
    if gate is None:
        assert not failed(gates) - {"cells: falls in ε"}
    else:
        assert gate in failed(gates)
        assert gates[gate].reason


def test_adaptive_that_is_weaker_than_white_box_is_caught():
    others = [r for r in HONEST if not (r.cell.rung == "adaptive" and r.cell.eps == 0.1)]
    gates = compared(*others, result(0.9, eps=0.1, rung="adaptive"))
    assert "adaptive against white-box" in failed(gates)
    assert "adaptive" in gates["adaptive against white-box"].reason


def test_attacks_that_raise_accuracy_above_clean_are_caught():
    gates = compared(result(0.7, kind="clean"), result(0.9, single_step=True))
    assert failed(gates) == {"cells: falls in ε"}


def test_differences_within_noise_pass():
    """The same accuracy on other images, and a few images more."""
    gates = compared(
        result(0.5, rung="transfer", seed=1), result(0.53, rung="white-box", seed=2, images=200)
    )
    assert not failed(gates)
    assert gates["white-box against transfer"].figures["largest rise"] == pytest.approx(0.03)


def test_cells_of_other_images_are_not_compared():
    gates = compared(result(0.2, rung="transfer", images=100), result(0.9, images=200))
    assert gates["white-box against transfer"].verdict == "not run"


@pytest.mark.parametrize(("rise", "verdict"), [(0.3, "fail"), (0.03, "pass"), (-0.1, "pass")])
def test_the_curve_of_the_adaptive_rung_must_not_rise(rise, verdict):
    points = [(1, "true", 0.5), (1, "unsaturated", 0.9), (5, "true", 0.5 + rise)]
    curve = tuple(CurvePoint(samples=s, gradients=g, accuracy=a) for s, g, a in points)
    gates = compared(result(0.4, rung="adaptive", curve=curve))
    assert gates["cells: falls in EOT samples"].verdict == verdict


def test_gates_of_the_audit_cell_are_kept():
    gate = Gate(name="unbounded ε", verdict="fail", demand="d", reason="r")
    gates = compared(result(0.9, kind="audit", gates=(gate,)), *HONEST)
    assert gates["unbounded ε"] == gate
    assert failed(gates) == {"unbounded ε"}


def test_defences_and_seeds_are_judged_apart():
    other = result(0.9)
    other = other.model_copy(update={"cell": other.cell.model_copy(update={"seed": 1})})
    assert set(audit_results([*HONEST, other])) == {
        ("m", "d", "v", "q", 0),
        ("m", "d", "v", "q", 1),
    }
    assert audit_results([]) == {}


@pytest.mark.slow
def test_the_shipped_network_passes():
    """It has saturating activations: the attacks of the audit look through them."""
    from qnad_art.benchmark.protocol import Protocol
    from qnad_art.datasets.dataset import load_dataset
    from qnad_art.pretrained import load_pretrained

    test = load_dataset("mnist5k", "test").take(100)
    gates = audit_cell(load_pretrained().hardened, test.x, test.y, Protocol(), 0)
    assert not unreliable(gates)
    assert [gate.name for gate in gates if gate.verdict == "not run"] == ["falls in EOT samples"]
