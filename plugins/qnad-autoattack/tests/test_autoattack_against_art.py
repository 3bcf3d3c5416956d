"""The authors' AutoAttack against ART's port: same network, same budget, as strong as each other.

Both attack the same images, so what one breaks and the other does not is counted (McNemar): if
they are equally strong, either is as likely, which an exact binomial test decides.
"""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from qnad_art.benchmark.attacks import AttackSpec
from qnad_art.benchmark.threats.victim import averaged, reseed, seeded

EPS = 0.08
LEVEL = 0.01


def right(spec, classifier, data, *, draws=1):
    """Whether each image is right under the attack, on a fresh draw."""
    target = averaged(classifier, draws)
    with seeded(0):
        reseed(classifier, 0)
        attack = AttackSpec.parse(spec).make(target, EPS, batch_size=250)
        x = attack.generate(data.x.copy(), data.y)
    reseed(classifier, 1)
    return classifier.predict(x).argmax(1) == data.y


def p_value(authors, art, *, alternative="two-sided"):
    """p-value of "what is left is the same"; ``greater``: against "the authors leave more"."""
    for outcome in (authors, art):
        assert 0.3 < outcome.mean() < 0.9, "the test needs some of both"
    only_authors, only_art = int((authors & ~art).sum()), int((art & ~authors).sum())
    if only_authors + only_art == 0:
        return 1.0
    return binomtest(only_authors, only_authors + only_art, alternative=alternative).pvalue


PAIRS = {
    "apgd-ce": (
        {"name": "pyautoattack-apgd-ce", "max_iter": 40},
        {"name": "autopgd-ce", "max_iter": 40},
    ),
    "apgd-dlr": (
        {"name": "pyautoattack-apgd-dlr", "max_iter": 40},
        {"name": "autopgd-dlr", "max_iter": 40},
    ),
    "square": (
        {"name": "pyautoattack-square", "max_queries": 300, "resc_schedule": True},
        {"name": "square", "max_iter": 300},
    ),
    "standard": (
        {"name": "pyautoattack-standard", "max_iter": 20, "max_queries": 200},
        {"name": "autoattack", "max_iter": 20, "max_queries": 200},
    ),
    "rand": (
        {"name": "pyautoattack-rand", "max_iter": 20, "eot_iter": 1},
        {"name": "autoattack-rand", "max_iter": 20, "eot_iter": 1},
    ),
}


@pytest.mark.parametrize("which", ["plain", "expectation"])
@pytest.mark.parametrize("pair", PAIRS)
def test_as_strong_as_arts(pair, which, request, digits):
    classifier = request.getfixturevalue(which)
    authors, art = (right(spec, classifier, digits) for spec in PAIRS[pair])
    assert p_value(authors, art) > LEVEL


def test_the_test_sees_a_weaker_attack(plain, digits):
    """Square with the authors' schedule for 10,000 queries, and 300 of them."""
    authors = {"name": "pyautoattack-square", "max_queries": 300}
    weak, art = (right(spec, plain, digits) for spec in (authors, PAIRS["square"][1]))
    assert p_value(weak, art, alternative="greater") < LEVEL


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_as_strong_under_shots_where_every_image_is_attacked_to_the_end(loss, noisy, digits):
    """Gradients averaged over five draws, by the authors' code and by the classifier."""
    authors = {"name": f"pyautoattack-apgd-{loss}", "max_iter": 20, "eot_iter": 5}
    left = right({**authors, "best_loss": True}, noisy, digits)
    art = right({"name": f"autopgd-{loss}", "max_iter": 20}, noisy, digits, draws=5)
    assert p_value(left, art) > LEVEL


def test_under_shots_the_authors_rule_flatters_the_network(noisy, digits):
    """They leave alone what one draw misclassifies; the benchmark judges on ten."""
    authors = right({"name": "pyautoattack-rand", "max_iter": 10, "eot_iter": 5}, noisy, digits)
    own = right({"name": "autoattack-rand", "max_iter": 10, "eot_iter": 5}, noisy, digits)
    assert p_value(authors, own, alternative="greater") < LEVEL
