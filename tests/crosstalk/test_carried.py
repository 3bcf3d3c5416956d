"""A network on another calibration: words kept gate for gate, or chosen anew."""

import warnings

import numpy as np
import pytest
import torch
from art_fixtures import images, network, plain

from qnad_art import QNAD, QuantumExecutedClassifier, convert
from qnad_art.crosstalk.carried import carried
from qnad_art.device.catalogue import load_device
from qnad_art.device.profile import DeviceProfile, Edge
from qnad_art.engines.verify_steps import verify_steps
from qnad_art.errors import DeviceError, InvalidInputError, QnadWarning

MODELS = ("paper", "echoed")


def inputs(count=100):
    return torch.tensor(images("digits", "train").x[:count])


def test_on_a_large_device_nothing_is_gone():
    """A product next to a word may be coupled only to its partner; no edge is missing then."""
    train = images("digits", "train")
    defence = QNAD(plain(), device="ibm_mumbai", fraction=0.3, strategy="random", pairs=2)
    defence.fit(train.x[:100], train.y[:100])
    module = defence(train.x[:100], plain()).module
    assert any(site.next_to is not None and site.partner is not None for site in module.plan.sites)
    for words in ("kept", "re-encoded"):
        assert carried(module, "ibm_mumbai", words=words).gone == ()


@pytest.fixture(scope="module", params=MODELS)
def hardened(request):
    """Six units of crosstalk on three weights in ten."""
    train = images("digits", "train")
    device = f"ibm_nairobi[crosstalk={request.param}]"
    settings = {"fraction": 0.3, "pairs": 6, "bias": "quantum", "headroom": 1.2}
    defence = QNAD(plain(), device=device, **settings)
    defence.fit(train.x[:200], train.y[:200])
    return defence(train.x[:200], plain())


def far(first, second):
    """Largest difference of the logits over their spread."""
    with torch.no_grad():
        a, b = first(inputs()), second(inputs())
    return float((a - b).abs().max() / a.std())


def test_on_its_own_calibration_nothing_changes(hardened):
    made = carried(hardened.module, hardened.module.device_profile, words="kept", gain="kept")
    assert far(hardened.module, made.module) < 1e-5
    assert (made.lost, made.gone) == (0, ())
    again = carried(hardened.module, hardened.module.device_profile)
    assert far(hardened.module, again.module) < 0.25


def test_words_are_chosen_anew_for_the_same_weights(hardened):
    """Where the coupling is off by a third, re-encoding undoes most of what it does."""
    device = hardened.module.device_profile.changed({"zz": 1.33})
    kept = carried(hardened.module, device, words="kept", gain="kept").module
    anew = carried(hardened.module, device).module
    assert far(hardened.module, anew) < 0.3 * far(hardened.module, kept)
    assert anew.plan.injected > 0.8 * hardened.plan.injected


def test_kept_waits_last_as_long_as_they_were_programmed():
    """A coupling that is stronger than it was turns more, for the same time."""
    module = convert(network(), inputs(), device="ibm_nairobi", seed=0)
    stronger = module.device_profile.changed({"zz": 1.25})
    made = carried(module, stronger, words="kept").module
    for before, after in zip(module.placement.sites, made.placement.sites, strict=True):
        if before.kind == "wait" and before.next_to is None:
            table, there = module.execution.table, made.execution.table
            index = table.index[before]
            turned = there.turns[there.index[after]]
            np.testing.assert_allclose(turned, 1.25 * table.turns[index], rtol=1e-9)
            break


def test_steps_of_a_kept_plan_are_as_compiled():
    """On the drifted device whole time steps on Aer give what the carried network computes."""
    train = images("digits", "train")
    defence = QNAD(plain(), device="ibm_nairobi", fraction=0.3)
    defence.fit(train.x[:100], train.y[:100])
    module = defence(train.x[:100], plain()).module
    made = carried(module, "ibm_nairobi[drift=day,seed=1]", words="kept").module
    found = verify_steps(made.device_profile, plan=made.plan, steps=4)
    assert found.largest_difference < 1e-10


def test_what_a_device_lacks_is_named(hardened):
    device = hardened.module.device_profile
    edges = [e for e in device.edges if {e.control, e.target} != {0, 1}]
    poorer = device.model_copy(update={"edges": edges, "name": "poorer"})
    for words in ("kept", "re-encoded"):
        made = carried(hardened.module, poorer, words=words)
        assert made.lost > 0 or words == "re-encoded"
        assert any("0–1" in what for what in made.gone)
        assert all("0–1" in what or "1–0" in what for what in made.gone)
        assert torch.isfinite(made.module(inputs())).all()
    with pytest.warns(QnadWarning, match=r"poorer lacks qubit 0–1"):
        hardened.on(poorer, words="kept")


def test_a_device_without_any_of_the_qubits_is_refused(hardened):
    lonely = DeviceProfile(
        name="lonely",
        two_qubit_gate="cx",
        qubits=hardened.module.device_profile.qubits[:2],
        edges=(Edge(control=0, target=1),),
    )
    other = hardened.module
    only = [q for q in other.placement.compute if q > 1]
    module = convert(network(), inputs(), device=other.device_profile, compute=only, seed=0)
    for words in ("kept", "re-encoded"):
        with pytest.raises(DeviceError, match="none of the compute qubits"):
            carried(module, lonely, words=words)


def test_choices_that_there_are_not(hardened):
    with pytest.raises(InvalidInputError, match="Valid: words='re-encoded'"):
        carried(hardened.module, "ibm_nairobi", words="recoded")
    with pytest.raises(InvalidInputError, match="gain='kept'"):
        hardened.on("ibm_nairobi", gain="kept")


def test_a_classifier_is_carried_saved_and_loaded(hardened, tmp_path):
    x = images("digits", "test").x[:50]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there = hardened.on(hardened.module.device_profile.changed({"zz": 1.05}), words="kept")
    there.save("there", str(tmp_path))
    again = QuantumExecutedClassifier.load(tmp_path / "there", model=network())
    np.testing.assert_allclose(again.predict(x), there.predict(x), atol=1e-5)
    assert again.module.device_profile.hash == there.module.device_profile.hash


def test_loading_says_that_the_device_has_been_calibrated_again(hardened, tmp_path):
    now = load_device("ibm_nairobi")
    other = hardened.module.device_profile.changed({"relaxation": 1.1})
    dated = {"name": "ibm_nairobi", "calibrated": "2024-01-01"}
    then = other.model_copy(update=dated)
    old = hardened.on(then, words="kept")
    old.save("old", str(tmp_path))
    with pytest.warns(QnadWarning, match=f"2024-01-01, now {now.calibrated}"):
        again = QuantumExecutedClassifier.load(tmp_path / "old", model=network())
    assert again.module.device_profile.hash == old.module.device_profile.hash
    hardened.save("new", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        QuantumExecutedClassifier.load(tmp_path / "new", model=network())


def test_tuning_goes_on_from_a_plan():
    """Weights and effective weights are those of the plan; one epoch at no rate changes nothing."""
    train = images("digits", "train")
    settings = {"epochs": 1, "batch_size": 64, "epsilon": 0.1, "seed": 0}
    first = QNAD(plain(), strategy="tuned", fraction=0.3, learning_rate=0.1, **settings)
    first.fit(train.x[:200], train.y[:200])
    start = first(train.x[:200], plain())
    going_on = QNAD(
        plain(),
        device="ibm_nairobi[zz=1.05]",
        strategy="tuned",
        start=start,
        learning_rate=1e-12,
        **settings,
    )
    going_on.fit(train.x[:200], train.y[:200])
    again = going_on(train.x[:200], plain())
    assert far(start.module, again.module) < 0.3
    assert abs(again.plan.injected - start.plan.injected) < 0.15 * start.plan.injected
    assert going_on.execution.bias == "quantum"
    other = plain()
    with torch.no_grad():
        next(iter(other.model.parameters())).add_(0.1)
    wrong = QNAD(other, strategy="tuned", start=start, **settings)
    with pytest.raises(InvalidInputError, match="other weights"):
        wrong.fit(train.x[:100], train.y[:100])
