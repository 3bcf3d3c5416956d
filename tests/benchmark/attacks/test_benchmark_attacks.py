"""The benchmark's attacks by name: ART's own classes are the oracle."""

from __future__ import annotations

import inspect
from typing import Any

import art.attacks.evasion as evasion
import numpy as np
import pytest
import torch
from art.attacks import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from art_fixtures import hardened, images, plain
from pydantic import ValidationError
from torch import nn

from qnad_art.benchmark import attacks
from qnad_art.benchmark.attacks import AttackSpec, attack_entry, attack_names
from qnad_art.benchmark.threats.victim import averaged, counted, in_own_precision, reseed, seeded
from qnad_art.errors import InvalidInputError, UnknownNameError

EPS = 0.25
COUNT = 4

# Settings with which an attack is over soon.
QUICK: dict[str, dict[str, Any]] = {
    "bim": {"max_iter": 4},
    "mim": {"max_iter": 4},
    "pgd": {"max_iter": 4},
    "autopgd-ce": {"max_iter": 5},
    "autopgd-dlr": {"max_iter": 5},
    "auto-conjugate-gradient": {"max_iter": 5},
    "rescaling-auto-conjugate-gradient": {"max_iter": 5},
    "autoattack": {"max_iter": 5, "max_queries": 5, "draws": 2},
    "autoattack-rand": {"max_iter": 5, "eot_iter": 2, "draws": 2},
    "universal-perturbation": {"max_iter": 1},
    "virtual-adversarial": {"max_iter": 1},
    "deepfool": {"max_iter": 10},
    "cw-l0": {"max_iter": 3, "binary_search_steps": 2},
    "cw-l2": {"max_iter": 5, "binary_search_steps": 2},
    "cw-linf": {"max_iter": 20, "largest_const": 2.0},
    "elastic-net": {"max_iter": 5, "binary_search_steps": 2},
    "newtonfool": {"max_iter": 5},
    "square": {"max_iter": 20},
    "threshold": {"max_iter": 1},
    "hopskipjump": {"max_iter": 2, "max_eval": 50, "init_eval": 5},
    "boundary": {"max_iter": 3, "sample_size": 3, "num_trial": 3},
    "sign-opt": {"max_iter": 2, "query_limit": 200},
    "zoo": {"max_iter": 20, "nb_parallel": 32},
    "simba": {"max_iter": 40},
    "pixel": {"max_iter": 1},
}


def examples(
    name: str, classifier: Any, count: int = COUNT, eps: float = EPS, **settings: Any
) -> np.ndarray:
    """What an attack makes of the first digits, seeded."""
    data = images()
    spec = AttackSpec.parse({"name": name, **settings})
    with seeded(0), in_own_precision(classifier):
        attack = spec.make(classifier, eps if spec.budgeted else None, batch_size=250)
        assert isinstance(attack, EvasionAttack)
        found: np.ndarray = attack.generate(data.x[:count].copy(), data.y[:count])
    return found


def accuracy(classifier: Any, x: np.ndarray, draws: int = 1) -> float:
    y = images().y[: len(x)]
    return float(np.mean([classifier.predict(x).argmax(1) == y for _ in range(draws)]))


def test_every_evasion_attack_of_art_is_there_or_is_said_to_be_left_out():
    taken = {attack_entry(name).path.partition(":")[2] for name in attack_names()}
    of_art = [
        name
        for name, value in vars(evasion).items()
        if inspect.isclass(value) and issubclass(value, EvasionAttack)
    ]
    prose = (attacks.__doc__ or "").replace("``…", "``ProjectedGradientDescent…")
    missing = [
        name
        for name in of_art
        if name not in taken
        and f"``{name}``" not in prose
        and not (name.endswith("TensorFlowV2") and "…TensorFlowV2" in prose)
        and not any(name == base + end for base in of_art for end in ("Numpy", "PyTorch"))
        and not name.startswith(("ImperceptibleASR", "FeatureAdversaries"))
    ]
    assert len(of_art) > 50
    assert not missing


@pytest.mark.parametrize("name", attack_names())
def test_attack_runs_within_its_budget_and_range(name):
    data, classifier = images(), plain()
    spec = AttackSpec.parse(name)
    found = examples(name, classifier, **QUICK.get(name, {}))
    assert found.shape == (COUNT, 1, 8, 8)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    change = (found - data.x[:COUNT]).reshape(COUNT, -1)
    assert np.array_equal(data.x[:COUNT], images().x[:COUNT])
    if spec.budgeted:
        assert spec.norm in ("inf", "2")
        order = np.inf if spec.norm == "inf" else 2
        assert np.linalg.norm(change, ord=order, axis=1).max() <= EPS + 1e-5
    if name not in ("threshold", "pixel", "virtual-adversarial", "zoo"):  # weak ones take longer
        assert np.abs(change).max() > 0


@pytest.mark.parametrize(
    "name",
    [
        *("fgsm", "pgd", "autopgd-ce", "deepfool", "jsma", "hopskipjump"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("cw-l2", "cw-linf")),
    ],
)
def test_attack_with_its_defaults_breaks_an_undefended_network(name):
    classifier = plain()
    quick = {"max_iter": 5, "max_eval": 100} if name == "hopskipjump" else {}
    # Eight images are too few: the network differs a little from processor to processor.
    count = 24
    assert accuracy(classifier, images().x[:count]) == 1
    assert accuracy(classifier, examples(name, classifier, count, eps=0.3, **quick)) <= 0.25


@pytest.mark.parametrize(
    ("name", "art_class", "settings"),
    [
        ("fgsm", "FastGradientMethod", {"eps": EPS}),
        (
            "pgd",
            "ProjectedGradientDescent",
            {"eps": EPS, "eps_step": EPS / 8, "max_iter": 20, "num_random_init": 1},
        ),
        ("bim", "BasicIterativeMethod", {"eps": EPS, "eps_step": EPS / 8, "max_iter": 20}),
        ("square", "SquareAttack", {"eps": EPS, "max_iter": 1000}),
        ("deepfool", "DeepFool", {"max_iter": 50, "batch_size": 250}),
    ],
)
def test_attack_is_arts_own_with_these_settings(name, art_class, settings):
    data, classifier = images(), plain()
    quiet = {} if art_class == "FastGradientMethod" else {"verbose": False}
    with seeded(0):
        art = getattr(evasion, art_class)(classifier, **settings, **quiet)
        expected = art.generate(data.x[:COUNT].copy(), data.y[:COUNT])
    assert np.array_equal(examples(name, classifier), expected)


def test_steps_and_types_follow_from_the_budget():
    classifier = plain()
    pgd = AttackSpec.parse({"name": "pgd", "max_iter": 10})
    attack = pgd.make(classifier, np.float32(0.2), batch_size=7)
    assert attack.eps_step == pytest.approx(0.05)
    assert type(attack.eps) is float
    assert attack.batch_size == 7
    one = AttackSpec.parse({"name": "pgd", "max_iter": 1}).make(classifier, 0.2, batch_size=7)
    assert one.eps_step == pytest.approx(0.2)
    own = AttackSpec.parse({"name": "pgd", "eps_step": 0.01}).make(classifier, 0.2, batch_size=7)
    assert own.eps_step == 0.01
    levels = AttackSpec.parse("threshold").make(classifier, 8 / 255, batch_size=7)
    assert levels.th == 8


def test_properties_tell_what_kind_of_attack_it_is():
    assert [n for n in attack_names() if AttackSpec.parse(n).single_step] == ["fgsm"]
    kinds = {n: AttackSpec.parse(n).kind for n in ("pgd", "square", "hopskipjump", "cw-l2")}
    assert kinds == {"pgd": "gradient", "square": "query", "hopskipjump": "query"} | {
        "cw-l2": "gradient"
    }
    assert not AttackSpec.parse("deepfool").budgeted
    assert AttackSpec.parse({"name": "pgd", "norm": 2}).norm == "2"
    assert AttackSpec.parse({"name": "pgd", "norm": "inf"}).norm == "inf"
    assert AttackSpec.parse("spatial-transformation").norm is None


@pytest.mark.parametrize("name", [n for n in attack_names() if attack_entry(n).kind == "query"])
def test_query_attacks_take_no_gradients(name):
    classifier = plain()
    with counted(classifier) as passes:
        examples(name, classifier, 2, **QUICK.get(name, {}))
    assert passes.gradients == 0
    assert passes.queries > 0


@pytest.mark.parametrize("name", ["autopgd-ce", "autopgd-dlr"])
def test_highest_loss_is_no_weaker_than_arts_own_without_noise(name):
    data, classifier = images(), plain()
    x, y = data.x[:50], data.y[:50]
    loss = {"autopgd-ce": "cross_entropy", "autopgd-dlr": "difference_logits_ratio"}[name]
    with seeded(0):
        art = evasion.AutoProjectedGradientDescent(
            classifier,
            eps=0.12,
            eps_step=0.24,
            max_iter=20,
            nb_random_init=2,
            loss_type=loss,
            batch_size=250,
            verbose=False,
        ).generate(x, y)
    ours = examples(name, classifier, 50, 0.12, max_iter=20, nb_random_init=2)
    assert accuracy(classifier, ours) <= accuracy(classifier, art) + 0.06  # random starts differ
    assert accuracy(classifier, ours) < 0.6


def test_highest_loss_leaves_no_image_alone_that_one_draw_takes_for_done():
    # So noisy that one draw is wrong about many images: ART's own would not attack those.
    classifier = hardened(shots=512)
    clean = accuracy(classifier, images().x[:50], draws=5)
    reseed(classifier, 1)
    found = examples("autopgd-ce", classifier, 50, 0.2, max_iter=5)
    untouched = np.abs(found - images().x[:50]).reshape(50, -1).max(1) < 1e-3
    assert not untouched.any()
    assert accuracy(classifier, found, draws=5) < clean - 0.3


def test_highest_loss_gives_the_classifier_back_as_it_was():
    data, classifier = images(), plain()
    before = classifier.predict(data.x[:8])
    attack = AttackSpec.parse({"name": "autopgd-ce", "max_iter": 2}).make(
        classifier, EPS, batch_size=3
    )
    first = attack.generate(data.x[:8], data.y[:8])
    assert first.shape == data.x[:8].shape
    assert "predict" not in vars(attack.estimator)
    assert np.array_equal(classifier.predict(data.x[:8]), before)
    assert len(attack.generate(data.x[:0], data.y[:0])) == 0


def test_restarts_go_on_with_the_images_that_hold():
    classifier, data = plain(), images()
    x, y = data.x[:50], data.y[:50]
    once, steps, restarts = {"max_iter": 4}, 4, 3
    with counted(classifier) as passes:
        found = examples("pgd", classifier, 50, 0.12, **once, num_random_init=restarts)
    # The oracle: ART's own PGD, one restart at a time, image by image broken or not.
    broken, attacked = np.zeros(50, dtype=bool), 0
    with seeded(0):
        for _ in range(restarts):
            art = evasion.ProjectedGradientDescent(
                classifier,
                eps=0.12,
                eps_step=0.12 * 2.5 / 4,
                max_iter=4,
                num_random_init=1,
                batch_size=250,
                verbose=False,
            )
            made = art.generate(x[~broken].copy(), y[~broken])
            attacked += int((~broken).sum())
            broken[~broken] = classifier.predict(made).argmax(1) != y[~broken]
    assert np.array_equal(classifier.predict(found).argmax(1) != y, broken)
    assert passes.gradients == attacked * steps < 50 * steps * restarts
    assert accuracy(classifier, found) < accuracy(
        classifier, examples("pgd", classifier, 50, 0.12, **once)
    )


def test_restarts_attack_every_image_of_a_noisy_network_every_time():
    classifier = hardened(shots=512)
    reseed(classifier, 1)
    with counted(classifier) as passes:
        examples("pgd", classifier, 20, 0.12, max_iter=3, num_random_init=2)
    assert passes.gradients == 20 * 3 * 2


def test_autoattack_is_no_weaker_than_its_members():
    classifier = plain()
    together = examples("autoattack", classifier, 50, 0.1, max_iter=20, max_queries=30)
    alone = [
        examples(name, classifier, 50, 0.1, max_iter=20) for name in ("autopgd-ce", "autopgd-dlr")
    ]
    assert accuracy(classifier, together) <= min(accuracy(classifier, x) for x in alone) + 0.02
    assert accuracy(classifier, together) < accuracy(classifier, images().x[:50])


@pytest.mark.parametrize("already", [False, True])
def test_rand_version_averages_over_draws(already):
    classifier = hardened(shots=4096)
    target = averaged(classifier, 3) if already else classifier
    data = images()
    attack = AttackSpec.parse(
        {"name": "autoattack-rand", "max_iter": 2, "eot_iter": 5, "draws": 2}
    ).make(target, EPS, batch_size=250)
    draws = {part.estimator.model.draws for part in attack.attacks}
    assert draws == ({3} if already else {5})
    with counted(classifier) as passes:
        found = attack.generate(data.x[:COUNT], data.y[:COUNT])
    assert passes.gradients > 0
    assert passes.gradients % draws.pop() == 0
    assert np.abs(found - data.x[:COUNT]).max() <= EPS + 1e-6


def test_rand_version_asks_a_network_without_noise_but_once():
    classifier, settings = plain(), {"max_iter": 3}
    with counted(classifier) as once:
        expected = examples("autoattack-rand", classifier, **settings, eot_iter=1)
    with counted(classifier) as passes:
        found = examples("autoattack-rand", classifier, **settings, eot_iter=20)
    assert passes.gradients == once.gradients > 0
    np.testing.assert_array_equal(found, expected)


def test_attacks_for_probabilities_get_them():
    classifier = plain()
    attack = AttackSpec.parse("simba").make(classifier, None, batch_size=8)
    outputs = attack.estimator.predict(images().x[:COUNT])
    expected = torch.as_tensor(classifier.predict(images().x[:COUNT])).softmax(1)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)


def test_specs_are_parsed_from_names_mappings_and_themselves():
    spec = AttackSpec.parse({"name": "pgd", "max_iter": 3})
    assert AttackSpec.parse(spec) is spec
    assert spec == AttackSpec(name="pgd", settings={"max_iter": 3})
    assert AttackSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("pdg", "Did you mean 'pgd'"),
        ({"name": "pgd", "max_itr": 3}, "Did you mean 'max_iter'"),
        ({"name": "pgd", "eps": 0.1}, "setting of attack 'pgd'"),
        ({"name": "bim", "num_random_init": 1}, "setting of attack 'bim'"),
        ({"name": "cw-l2", "targeted": True}, "setting of attack 'cw-l2'"),
        ({"name": "autopgd-ce", "loss_type": None}, "setting of attack 'autopgd-ce'"),
    ],
)
def test_unknown_names_and_settings_get_the_nearest_valid_one(value, hint):
    with pytest.raises(UnknownNameError, match=hint):
        AttackSpec.parse(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"name": "pgd", "max_iter": "many"}, ("'pgd'", "max_iter is 'many'")),
        ({"name": "square", "norm": 7}, ("'square'", "norm is 7")),
        ({"name": "autoattack", "draws": 0}, ("'autoattack'", "draws is 0")),
        ({"name": "autoattack-rand", "eot_iter": 1.5}, ("eot_iter is 1.5",)),
        ({"max_iter": 3}, ("An attack is a name",)),
        (3, ("An attack is a name",)),
    ],
)
def test_values_that_art_refuses_are_named(value, words):
    with pytest.raises(InvalidInputError) as caught:
        AttackSpec.parse(value)
    assert all(word in str(caught.value) for word in words)


def test_a_spec_is_checked_however_it_is_made():
    with pytest.raises(ValidationError, match="max_iter"):
        AttackSpec(name="pgd", settings={"max_itr": 3})


def test_budget_is_given_exactly_where_there_is_one():
    with pytest.raises(InvalidInputError, match="needs a budget"):
        AttackSpec.parse("pgd").make(plain(), None, batch_size=1)
    with pytest.raises(InvalidInputError, match="takes no budget"):
        AttackSpec.parse("deepfool").make(plain(), 0.1, batch_size=1)


def test_difference_of_logits_ratio_needs_three_classes():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    two = PyTorchClassifier(network, nn.CrossEntropyLoss(), (1, 8, 8), 2, device_type="cpu")
    with pytest.raises(InvalidInputError, match="3 classes"):
        AttackSpec.parse("autopgd-dlr").make(two, 0.1, batch_size=1)
