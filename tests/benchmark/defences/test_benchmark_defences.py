"""The benchmark's defences by name: they fit, apply, compose, and do what they are known to do."""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescent
from art.defences.preprocessor import FeatureSqueezing, SpatialSmoothing, TotalVarMin
from art.estimators.classification import PyTorchClassifier
from art_fixtures import images, plain
from fake_plugins import Fake
from torch import nn

from qnad_art.benchmark.defences import (
    build_steps,
    defence_names,
    steps_content,
    steps_identity,
)
from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.threats.victim import (
    averaged,
    frozen,
    noise_sources,
    reseed,
    seeded,
    surrogate,
    with_module,
)
from qnad_art.defence import QNAD
from qnad_art.device.catalogue import load_device
from qnad_art.errors import ArtifactError, InvalidInputError, UnknownNameError
from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.plugins.discovery import VARIABLE

# Settings with which a fit is over soon.
SOON = {"epochs": 1, "batch_size": 64}
QUICK: dict[str, dict[str, Any]] = {
    "inherent": {"shots": 4096},
    "qnad-tuned": {"epochs": 1, "attack_steps": 1, "epsilon": 0.1},
    "madry": {**SOON, "attack_steps": 1},
    "trades": {**SOON, "attack_steps": 1},
    "awp": {**SOON, "attack_steps": 1},
    "fast-adversarial-training": SOON,
    "gaussian-augmentation": SOON,
    "defensive-distillation": SOON,
    "finetune": {"epochs": 1, "attack_steps": 1},
    "randomized-smoothing": {"samples": 3},
    "rse": {**SOON, "samples": 3},
    "pni": {**SOON, "attack_steps": 1},
    "gaussian-control": {"of": {"name": "qnad-uniform", "shots": 4096}, "images": 64},
}
BY_NAME = [name for name in defence_names() if name not in ("none", "hardened")]
STOCHASTIC = ("inherent", "randomized-smoothing", "rse", "pni", "gaussian-control")


def spec(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, **QUICK.get(name, {}), **settings}


def work(count: int = 128, seed: int = 0) -> Work:
    data = images("digits", "train")
    return Work(data.subset(range(count)), load_device("ibm_nairobi"), seed)


def defended(
    what: Any, folder: Path, *, base: PyTorchClassifier | None = None, using: Work | None = None
) -> PyTorchClassifier:
    """A classifier under a defence, fitted and applied step by step."""
    classifier = plain() if base is None else base
    using = using or work()
    for number, step in enumerate(build_steps(what)):
        own = folder / str(number)
        own.mkdir(parents=True)
        step.fit(classifier, using, own)
        classifier = step.apply(classifier, using, own)
    return classifier


def logits(classifier: PyTorchClassifier, seed: int = 0, count: int = 16) -> np.ndarray:
    reseed(classifier, seed)
    outputs: np.ndarray = classifier.predict(images().x[:count])
    return outputs


def accuracy(classifier: PyTorchClassifier, x: np.ndarray) -> float:
    return float((classifier.predict(x).argmax(1) == images().y[: len(x)]).mean())


def state(classifier: PyTorchClassifier) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in classifier.model.state_dict().items()}


@pytest.mark.parametrize("name", BY_NAME)
def test_defence_is_fitted_and_applied_the_same_at_every_call(name, tmp_path):
    classifier, using = plain(), work()
    before, expected = state(classifier), logits(classifier)
    classifier.model.train()
    (step,) = build_steps(spec(name))
    assert isinstance(step, Defence)
    with seeded(7):
        here = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
        step.fit(classifier, using, tmp_path)
        first = step.apply(classifier, using, tmp_path)
        assert torch.equal(torch.get_rng_state(), here[0])
        assert np.array_equal(np.random.get_state()[1], here[1])  # noqa: NPY002
    second = step.apply(classifier, using, tmp_path)
    assert classifier.model.training
    assert all(torch.equal(t, before[n]) for n, t in classifier.model.state_dict().items())
    classifier.model.eval()
    assert np.array_equal(logits(classifier), expected)
    for one in (first, second):
        assert isinstance(one, PyTorchClassifier)
        assert one.model is not classifier.model
        one.model.eval()
    assert np.array_equal(logits(first), logits(second))
    assert logits(first).shape == (16, 10)
    assert not np.array_equal(logits(first), expected)
    assert (not np.array_equal(logits(first, 0), logits(first, 1))) == (name in STOCHASTIC)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json"}


@pytest.mark.parametrize("name", ["madry", "rse", "qnad-random", "gaussian-control"])
def test_the_same_seed_gives_the_same_defence(name, tmp_path):
    one, same, other = (
        logits(defended(spec(name), tmp_path / f"{n}", using=work(seed=seed)))
        for n, seed in enumerate((1, 1, 2))
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    "steps",
    [
        ["madry", "qnad-uniform"],
        ["feature-squeezing", "spatial-smoothing", "jpeg"],
        ["gaussian-augmentation", "randomized-smoothing"],
        ["feature-squeezing", "madry", "inherent"],
        ["inherent", "feature-squeezing", "randomized-smoothing"],
        ["inherent", "madry"],
        ["pni", "spatial-smoothing"],
        ["rse", "qnad-uniform"],
        ["randomized-smoothing", "qnad-random"],
        ["qnad-uniform", "rse"],
        ["pni", "gaussian-control"],
        ["feature-squeezing", "qnad-tuned"],
    ],
    ids=" + ".join,
)
def test_steps_compose(steps, tmp_path):
    using, mine = work(64), [spec(name) for name in steps]
    if "pni" in steps:
        mine[-1] |= {"of": "spatial-smoothing"} if steps[-1] == "gaussian-control" else {}
    classifier = defended(mine, tmp_path, using=using)
    assert np.isfinite(logits(classifier)).all()
    assert np.array_equal(logits(classifier), logits(classifier))
    quantum = any(name.startswith(("inherent", "qnad")) for name in steps)
    assert isinstance(classifier, QuantumExecutedClassifier) == quantum
    attack = ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.05, max_iter=2, verbose=False)
    found = attack.generate(images().x[:4], images().y[:4])
    assert 0 < np.abs(found - images().x[:4]).max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (["qnad-tuned", "inherent"], "as circuits"),
        (["pni", "qnad-uniform"], "pni and qnad-uniform"),
        (["inherent", "pni"], "pni and inherent"),
        (["pni", "madry", "pni"], "given twice"),
        (["pni", {"name": "gaussian-control", "of": "inherent"}], "pni and inherent"),
    ],
)
def test_steps_that_do_not_go_together_are_refused_at_once(steps, words):
    with pytest.raises(InvalidInputError, match=words):
        build_steps(steps)


def test_names_mappings_lists_and_steps_are_defences():
    assert build_steps("none") == ()
    assert build_steps([]) == ()
    assert build_steps(["none", "jpeg"]) == build_steps("jpeg")
    (step,) = build_steps({"name": "madry", "epochs": 3})
    assert build_steps([step]) == (step,)
    assert step.epochs == 3
    assert step.name == "madry"
    (eps,) = build_steps({"name": "madry", "epsilon": "8/255"})
    assert eps.epsilon == pytest.approx(8 / 255)
    assert not step.quantum


@pytest.mark.parametrize("name", ["none", *BY_NAME, "art.defences.preprocessor.TotalVarMin"])
def test_content_is_json_that_builds_the_same_steps(name):
    steps = build_steps(spec(name))
    content = json.loads(json.dumps(steps_content(steps), allow_nan=False))
    assert build_steps(content) == steps
    assert steps_content(build_steps(content)) == content
    if name not in ("none", "art.defences.preprocessor.TotalVarMin"):
        left_out = {"strategy", "ranked_at", "mapping", "echo"}
        assert type(steps[0]).model_fields.keys() - content[0].keys() <= left_out


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("mardy", "Did you mean 'madry'"),
        ({"name": "madry", "epoch": 3}, "Did you mean 'epochs'"),
        ({"name": "qnad-tuned", "head_room": 2}, "Did you mean 'headroom'"),
        ({"name": "none", "epochs": 3}, "defence 'none'"),
        ("art.defences.preprocessor.FeatureSqueeze", "FeatureSqueezing"),
        ("art.defences.detector.evasion.BinaryInputDetector", "preprocessor or trainer"),
        ("art.defences.trainer.AdversarialTrainerTRADES", "preprocessor or trainer"),
        ({"name": "art.defences.preprocessor.FeatureSqueezing", "depth": 3}, "'bit_depth'"),
    ],
)
def test_unknown_names_and_settings_get_the_nearest_valid_one(value, words):
    with pytest.raises(UnknownNameError, match=words):
        build_steps(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"name": "madry", "epochs": 0}, ("'madry'", "epochs is 0")),
        ({"name": "madry", "epsilon": "much"}, ("epsilon", "'much'")),
        ({"name": "qnad-tuned", "validation_fraction": 2.0}, ("'qnad-tuned'", "2.0")),
        ({"name": "qnad-uniform", "polarity": "odd"}, ("polarity is 'odd'",)),
        ({"name": "qnad-uniform", "pairs": 0}, ("pairs is 0",)),
        ({"name": "feature-squeezing", "bit_depth": 65}, ("bit_depth is 65",)),
        ({"name": "gaussian-control"}, ("of is missing",)),
        ({"name": "gaussian-control", "of": "mardy"}, ("of", "madry")),
        ({"name": "art.defences.preprocessor.FeatureSqueezing", "bit_depth": 0}, ("is 0", "bit")),
        ({"name": "art.defences.preprocessor.Mp3Compression", "sample_rate": 1}, ()),
        ("art.defences.preprocessor.LabelSmoothing", ("training only",)),
        ("art.defences.trainer.DPInstaHideTrainer", ("ART says",)),
        (3, ("A defence is a name",)),
        ([["madry"]], ("A defence is a name",)),
    ],
)
def test_values_that_cannot_be_used_are_named(value, words, tmp_path):
    with pytest.raises(InvalidInputError) as caught:
        defended(value, tmp_path)
    assert all(word in str(caught.value) for word in words)


def test_damaged_or_foreign_weights_are_refused(tmp_path):
    (step,) = build_steps(spec("madry"))
    step.fit(plain(), work(64), tmp_path)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    foreign = PyTorchClassifier(other, nn.CrossEntropyLoss(), (1, 8, 8), 10, device_type="cpu")
    with pytest.raises(ArtifactError, match="another network"):
        step.apply(foreign, work(), tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError):
        step.apply(plain(), work(), tmp_path)


# Noise, by the convention of the benchmark.


@pytest.mark.parametrize("name", ["randomized-smoothing", "rse", "pni", "gaussian-control"])
def test_noise_is_seeded_frozen_averaged_and_turned_off(name, tmp_path):
    classifier = defended(spec(name), tmp_path)
    x = images().x[:8]
    assert noise_sources(classifier)
    assert np.array_equal(logits(classifier, 3), logits(classifier, 3))
    assert not np.array_equal(logits(classifier, 3), logits(classifier, 4))
    with frozen(classifier):
        drawn = [classifier.predict(x) for _ in range(2)]
        mean = averaged(classifier, 4).predict(x)
    assert np.array_equal(*drawn)
    assert not np.allclose(mean, drawn[0])  # an average over draws is one pass of several
    exact = surrogate(classifier)
    assert np.array_equal(logits(exact, 0), logits(exact, 1))
    assert not np.array_equal(logits(classifier, 0), logits(classifier, 1))
    # What rebuilds its classifier from the module meets the noise.
    attack = AutoProjectedGradientDescent(
        classifier, eps=0.1, eps_step=0.1, max_iter=1, loss_type="cross_entropy", verbose=False
    )
    reseed(classifier, 5)
    expected = classifier.predict(x)
    reseed(classifier, 5)
    np.testing.assert_allclose(attack.estimator.predict(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["randomized-smoothing", "gaussian-control"])
def test_without_its_noise_an_untrained_defence_is_the_plain_network(name, tmp_path):
    exact = surrogate(defended(spec(name), tmp_path))
    expected = torch.as_tensor(logits(plain())).log_softmax(1)
    found = torch.as_tensor(logits(exact)).log_softmax(1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_smoothing_is_the_mean_softmax_of_noisy_copies(tmp_path):
    sigma, samples, rounds = 0.2, 10, 40
    classifier = defended(
        {"name": "randomized-smoothing", "sigma": sigma, "samples": samples}, tmp_path
    )
    x = images().x[:4]
    found = np.mean(np.exp([classifier.predict(x) for _ in range(rounds)]), axis=0)
    generator = np.random.default_rng(0)
    copies = x + sigma * generator.standard_normal((samples * rounds, *x.shape))
    outputs = plain().predict(copies.reshape(-1, 1, 8, 8).astype(np.float32))
    expected = torch.as_tensor(outputs).softmax(1).numpy().reshape(-1, 4, 10).mean(0)
    np.testing.assert_allclose(found, expected, atol=0.05)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-4)


def test_weights_of_parametric_noise_have_the_variance_that_alpha_says(tmp_path):
    classifier = defended(spec("pni"), tmp_path)
    network = classifier.model.network
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 5
    for layer in layers:
        kept = layer.parametrizations.weight
        drawn = torch.stack([layer.weight.detach() for _ in range(200)])
        expected = float(kept[0].alpha.abs() * kept.original.std(correction=0))
        assert float((drawn - kept.original).std()) == pytest.approx(expected, rel=0.05)
    trained = [float(layer.parametrizations.weight[0].alpha) for layer in layers]
    assert all(abs(alpha - 0.25) > 1e-6 for alpha in trained)


def test_self_ensemble_has_noise_before_convolutions_only(tmp_path):
    classifier = defended(spec("rse", sigma_first=0.3, sigma_inner=0.1), tmp_path)
    x = torch.zeros(512, 1, 8, 8)
    deviations = []
    for layer in classifier.model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(lambda m, inputs: deviations.append(inputs[0]))
    with torch.no_grad():
        classifier.model.module(x)
    assert len(deviations) == 2
    assert float(deviations[0].std()) == pytest.approx(0.3, rel=0.05)
    # The same network without noise in the second place only.
    spread = deviations[1].std(0).mean()
    assert float(spread) > 0.1


# A plan from a folder.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network hardened on other images than the tests use, so that its scales are its own."""
    where = tmp_path_factory.mktemp("hardened")
    data = images("digits", "train")
    qnad = QNAD(plain(), fraction=0.2, seed=0, headroom=1.2)
    qnad.fit(data.x[500:600], data.y[500:600])
    qnad(data.x[500:600], plain()).save("lenet5", str(where))
    return where / "lenet5"


def hardened_by(folder: Path, **settings: Any) -> dict[str, Any]:
    return {"name": "hardened", "folder": str(folder), **settings}


def test_a_hardened_folder_is_the_classifier_that_was_saved(folder, tmp_path):
    saved = QuantumExecutedClassifier.load(folder)
    found = defended(hardened_by(folder), tmp_path)
    assert np.array_equal(logits(found), logits(saved))
    assert found.plan.injected == saved.plan.injected > 0
    (step,) = build_steps(hardened_by(folder))
    assert step.quantum
    assert not step.noisy
    assert build_steps(hardened_by(folder, shots=64))[0].noisy
    assert defended(hardened_by(folder, shots=64), tmp_path / "noisy").shots == 64


def test_a_plan_carries_over_to_other_weights_with_scales_of_their_own(folder, tmp_path):
    other = plain()
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.5)
    found = defended(hardened_by(folder), tmp_path, base=other)
    saved = QuantumExecutedClassifier.load(folder)
    for name, layer in saved.module.layers.items():
        assert torch.equal(found.plan.layers[name].pairs, saved.plan.layers[name].pairs)
        first = layer.input_scale == 1.0  # of the image, whatever the weights
        assert (found.module.layers[name].input_scale == layer.input_scale) == first
    assert found.module.execution.headroom == 1.2
    assert np.mean(found.predict(images().x).argmax(1) == images().y) > 0.8


def test_a_folder_is_named_by_its_content(folder, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    here, there = (steps_identity(build_steps(hardened_by(f))) for f in (folder, moved))
    assert here == there
    control = [{"name": "gaussian-control", "of": hardened_by(f)} for f in (folder, moved)]
    assert steps_identity(build_steps(control[0])) == steps_identity(build_steps(control[1]))
    QuantumExecutedClassifier.load(moved).save("other", str(tmp_path))
    changed = QuantumExecutedClassifier.load(moved)
    changed.module.remove_crosstalk()
    changed.save("other", str(tmp_path))
    assert steps_identity(build_steps(hardened_by(tmp_path / "other"))) != here


@pytest.mark.parametrize("words", ["kept", "re-encoded"])
def test_a_folder_is_carried_to_a_drifted_device(folder, tmp_path, words):
    drifted = load_device("ibm_nairobi[drift=day,seed=1]")
    work = Work(images("digits", "train").subset(range(64)), drifted, 0)
    found = defended(hardened_by(folder, words=words), tmp_path, using=work)
    saved = QuantumExecutedClassifier.load(folder)
    gain = "kept" if words == "kept" else "recalibrated"
    oracle = saved.on(drifted, words=words, gain=gain)
    assert np.array_equal(logits(found), logits(oracle))
    assert not np.array_equal(logits(found), logits(saved))
    (step,), (before,) = (build_steps(hardened_by(folder, words=w)) for w in (words, None))
    assert steps_identity([step])[0]["words"] == words
    assert "words" not in steps_identity([before])[0]


def test_folders_that_cannot_be_used_say_why(folder, tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        steps_identity(build_steps(hardened_by(tmp_path / "nothing")))
    other = Work(images("digits", "train").subset(range(64)), load_device("ibm_lagos"), 0)
    with pytest.raises(InvalidInputError, match="Make a plan for that device"):
        defended(hardened_by(folder), tmp_path / "device", using=other)
    with pytest.raises(InvalidInputError, match="as circuits"):
        build_steps(["inherent", hardened_by(folder)])


# The matched Gaussian control.


def outputs_of_layers(classifier: PyTorchClassifier, x: np.ndarray) -> list[np.ndarray]:
    """Of each convolution and linear layer as what follows sees it, by hooks on named layers."""
    found: list[np.ndarray] = []
    hooks = []
    for part in classifier.model.modules():
        wrapped = type(part).__name__ == "NoisyOutput"
        inside = any(
            part is inner.layer
            for inner in classifier.model.modules()
            if type(inner).__name__ == "NoisyOutput"
        )
        if wrapped or (isinstance(part, nn.Conv2d | nn.Linear) and not inside):
            hooks.append(
                part.register_forward_hook(lambda m, i, out: found.append(out.detach().numpy()))
            )
    classifier.predict(x, batch_size=len(x))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(
    "of",
    [
        {"name": "inherent", "shots": 1024},
        {"name": "qnad-uniform", "pairs": 1},
        {"name": "rse", "epochs": 1, "samples": 1},
    ],
    ids=lambda of: of["name"],
)
def test_control_deviates_layer_by_layer_as_its_reference(of, tmp_path):
    using = work(512)
    reference = defended(of, tmp_path / "reference", using=using)
    control = defended(
        {"name": "gaussian-control", "of": of, "images": 512}, tmp_path / "control", using=using
    )
    x = using.training.x
    expected = outputs_of_layers(plain(), x)

    def variances(classifier: PyTorchClassifier) -> list[float]:
        """Mean over draws: that of one is uncertain by some per cent."""
        drawn = []
        for seed in range(5):
            reseed(classifier, seed)
            found = outputs_of_layers(classifier, x)
            drawn.append([np.var(a - b) for a, b in zip(found, expected, strict=True)])
        return [float(value) for value in np.mean(drawn, axis=0)]

    wanted, there = variances(reference), variances(control)
    assert len(wanted) == 5
    # A layer that deviates more already gets nothing, so only from below the match is exact.
    noise = json.loads((tmp_path / "control" / "0" / "noise.json").read_text())["std"]
    for target, found, std in zip(wanted, there, noise, strict=True):
        assert found == pytest.approx(target, rel=0.15) if std else found > target
    assert sum(std > 0 for std in noise) >= 2


def test_control_says_whether_it_needs_the_device():
    control = [{"name": "gaussian-control", "of": of} for of in ("rse", ["madry", "inherent"])]
    assert [build_steps(one)[0].quantum for one in control] == [False, True]


def test_control_needs_the_same_layers(tmp_path):
    class Wider(Defence):
        name = "wider"

        def apply(self, classifier: Any, work: Work, folder: Path) -> Any:
            more = nn.Sequential(classifier.model, nn.Linear(10, 10))
            return with_module(classifier, more)

    (control,) = build_steps({"name": "gaussian-control", "of": [Wider()]})
    with pytest.raises(InvalidInputError, match="6 layers"):
        control.fit(plain(), work(64), tmp_path)


# Preprocessors.


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("feature-squeezing", FeatureSqueezing(clip_values=(0, 1), bit_depth=1)),
        ("spatial-smoothing", SpatialSmoothing(window_size=3, channels_first=True)),
    ],
)
def test_preprocessor_is_arts_own_with_gradients_passed_through(name, oracle, tmp_path):
    x, y = images().x[:8], images().y[:8]
    classifier = defended(name, tmp_path)
    changed = oracle(x)[0].astype(np.float32)
    expected = plain().predict(changed)
    np.testing.assert_allclose(classifier.predict(x), expected, rtol=1e-5, atol=1e-5)
    assert classifier.predict(x).dtype == np.float32
    # Backwards it is the identity: the gradient is that of the network at the changed images.
    labels = np.eye(10, dtype=np.float32)[y]
    gradient = classifier.loss_gradient(x, labels)
    np.testing.assert_allclose(
        gradient, plain().loss_gradient(changed, labels), rtol=1e-4, atol=1e-6
    )


def test_any_preprocessor_of_art_goes_by_its_dotted_name(tmp_path):
    what = {"name": "art.defences.preprocessor.SpatialSmoothing", "window_size": 2}
    x = images().x[:8]
    changed, _ = SpatialSmoothing(window_size=2, channels_first=True)(x)
    found = defended(what, tmp_path).predict(x)
    np.testing.assert_allclose(found, plain().predict(changed), rtol=1e-5, atol=1e-5)


def test_preprocessor_that_draws_at_random_keeps_the_convention_of_noise(tmp_path):
    what = {"name": "art.defences.preprocessor.TotalVarMin", "max_iter": 2, "prob": 0.5}
    classifier = defended(what, tmp_path)
    assert len(noise_sources(classifier)) == 1
    assert np.array_equal(logits(classifier, 1, 2), logits(classifier, 1, 2))
    assert not np.array_equal(logits(classifier, 1, 2), logits(classifier, 2, 2))
    with frozen(classifier):
        assert np.array_equal(
            classifier.predict(images().x[:2]), classifier.predict(images().x[:2])
        )
    exact = surrogate(classifier)
    assert np.array_equal(logits(exact, 1, 2), logits(exact, 2, 2))
    assert TotalVarMin.__name__ in repr(classifier.model.preprocessor)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"name": "art.defences.preprocessor.ThermometerEncoding"}, "shape"),
        ({"name": "art.defences.preprocessor.Resample", "sr_original": 2, "sr_new": 1}, ""),
    ],
)
def test_preprocessor_that_does_not_fit_the_images_is_refused(what, words, tmp_path):
    with pytest.raises(InvalidInputError, match=words):
        defended(what, tmp_path)


def test_preprocessor_before_standardisation_is_refused(tmp_path):
    standardised = plain(preprocessing=(0.5, 0.5))
    with pytest.raises(InvalidInputError, match="before the classifier's own"):
        defended("jpeg", tmp_path, base=standardised)


# Training.


def test_any_trainer_of_art_goes_by_its_dotted_name(tmp_path):
    what = {
        "name": "art.defences.trainer.AdversarialTrainer",
        "nb_epochs": 1,
        "batch_size": 64,
        "ratio": 1.0,
        "attack": {"name": "fgsm", "eps": 0.1},
    }
    (step,) = build_steps(what)
    classifier = defended(what, tmp_path)
    assert not np.array_equal(logits(classifier), logits(plain()))
    assert steps_content([step]) == [what]


def test_qnad_runs_on_the_device_with_the_plan_it_was_fitted(tmp_path):
    classifier = defended(
        {"name": "qnad-uniform", "fraction": 0.2, "ranked_at": 0.1, "shots": 2048}, tmp_path
    )
    assert isinstance(classifier, QuantumExecutedClassifier)
    assert classifier.plan.strategy == "uniform"
    assert classifier.plan.requested == 0.2
    assert classifier.plan.injected > 0
    assert classifier.shots == 2048
    assert classifier.module.device_profile.hash == load_device("ibm_nairobi").hash
    bare = defended({"name": "inherent", "percentile": 99.0, "headroom": 2.0}, tmp_path / "bare")
    assert bare.plan.injected == 0
    assert bare.module.execution.headroom == 2.0


class Nowhere:
    """A strategy of a plugin that says nothing of itself."""

    name = "nowhere"

    def __init__(self, fraction: float = 0.3, offset: int = 0) -> None:
        self.fraction, self.offset = fraction, offset

    def plan(self, module, x, y):
        return dataclasses.replace(
            module.plan,
            strategy=self.name,
            requested=self.fraction,
            settings={"offset": self.offset},
        )


def test_qnad_takes_every_strategy_and_short_names_stand_for_it(tmp_path, monkeypatch):
    tuned = build_steps({"name": "qnad", "strategy": "tuned", "epochs": 2, "epsilon": "6/255"})
    assert tuned == build_steps({"name": "qnad-tuned", "epochs": 2, "epsilon": 6 / 255})
    site = tmp_path / "site-packages"
    Fake("qnad-nowhere", "strategy", f"nowhere = {__name__}:Nowhere").install(site)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv(VARIABLE, "qnad-nowhere")
    (step,) = build_steps({"name": "qnad-nowhere", "offset": 3, "shots": 64})
    assert "qnad-nowhere" in defence_names()
    assert step.by == "qnad-nowhere 1.0"
    assert build_steps(json.loads(json.dumps(steps_content([step])))) == (step,)
    assert defended([step], tmp_path / "fit").plan.settings == {"offset": 3}
    with pytest.raises(UnknownNameError, match="Did you mean 'offset'"):
        build_steps({"name": "qnad", "strategy": "nowhere", "ofset": 3})


def test_the_settings_that_name_recorded_results_stay():
    (uniform,) = steps_identity(build_steps("qnad-uniform"))
    execution = {
        **{"shots": None, "allocation": "margin", "calibration_images": 512, "readout": "twirled"},
        **{"gain": "calibrated", "headroom": 1.0, "bias": "classical", "percentile": None},
        **{"include": ["*"], "exclude": [], "order": "stretched", "compute": None, "max_pairs": 8},
    }
    injected = {"fraction": 0.3, "pairs": 1, "polarity": "alternating", "scope": "global"}
    assert uniform == {"name": "qnad-uniform", **execution, **injected, "ranked_at": None}
    (random,) = steps_identity(build_steps("qnad-random"))
    assert random == {"name": "qnad-random", **execution, **injected}
    (tuned,) = steps_identity(build_steps("qnad-tuned"))
    assert tuned == {
        **{"name": "qnad-tuned", **execution, "bias": "quantum", "fraction": 0.3},
        **{"codebook": "all", "ranked_on": "adversarial", "refresh": 0, "scope": "balanced"},
        **{"epsilon": 0.3, "attack_steps": 3, "robust_weight": 0.7, "epochs": 5},
        **{"batch_size": 128, "learning_rate": 0.02, "patience": None},
        **{"validation_fraction": 0.1, "shot_noise": True, "precision": "float32"},
    }


@pytest.mark.parametrize("name", ["inherent", "qnad-uniform", "qnad-tuned"])
def test_another_mapping_is_named_and_the_default_is_not(name):
    default, same, other = (
        steps_content(build_steps({"name": name, **settings}))[0]
        for settings in ({}, {"mapping": "arcsine"}, {"mapping": "linear"})
    )
    assert default == same == {k: v for k, v in other.items() if k != "mapping"}
    assert other["mapping"] == "linear"
    assert build_steps(other)[0].settings().mapping == "linear"


def test_a_mapping_that_does_not_exist_is_refused():
    with pytest.raises(InvalidInputError, match="Did you mean 'linear'"):
        build_steps({"name": "inherent", "mapping": "linaer"})


def test_networks_run_under_the_mapping_that_a_step_names(tmp_path):
    steps = {"name": "qnad-uniform", "mapping": "linear"}
    assert defended(steps, tmp_path).module.settings.mapping == "linear"


@pytest.mark.slow
def test_student_of_a_teacher_at_high_temperature(tmp_path):
    using = work(1400)
    student = defended({"name": "defensive-distillation", "epochs": 60}, tmp_path, using=using)
    x = images().x
    assert accuracy(student, x) > 0.85
    # Trained at temperature 20, its logits at 1 are far apart.
    assert np.abs(student.predict(x)).max() > 3 * np.abs(plain().predict(x)).max()


EPSILON = 0.12


@cache
def pgd_accuracy_of_the_plain_network() -> float:
    return pgd_accuracy(plain())


def pgd_accuracy(classifier: PyTorchClassifier) -> float:
    reseed(classifier, 0)
    with seeded(0):
        x = (
            ProjectedGradientDescent(
                averaged(classifier, 3),
                eps=EPSILON,
                eps_step=EPSILON / 4,
                max_iter=10,
                batch_size=250,
                verbose=False,
            )
            .generate(images().x[:200], images().y[:200])
            .astype(np.float32)
        )
    return float(np.mean([accuracy(classifier, x) for _ in range(3)]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("madry", {"epsilon": EPSILON, "epochs": 10}),
        ("trades", {"epsilon": EPSILON, "epochs": 20, "learning_rate": 0.0003}),
        ("awp", {"epsilon": EPSILON, "epochs": 10}),
        ("fast-adversarial-training", {"epsilon": EPSILON}),
        ("pni", {"epsilon": EPSILON, "epochs": 12}),
        ("finetune", {"epsilon": EPSILON, "epochs": 20}),
        ("rse", {"sigma_first": 0.3, "sigma_inner": 0.2}),
    ],
)
def test_training_gains_accuracy_under_attack(name, settings, tmp_path):
    classifier = defended({"name": name, **settings}, tmp_path, using=work(1400))
    assert accuracy(classifier, images().x[:200]) > 0.75
    assert pgd_accuracy(classifier) > pgd_accuracy_of_the_plain_network() + 0.1
