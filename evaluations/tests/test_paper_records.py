"""The paper's claims and table from records, and the page that says so: known cases, both ways."""

from pathlib import Path

import numpy as np
import pytest
from benchmark_results import attack, cell, failed, outcomes, passed, result
from scipy.stats import bootstrap

from qnad_art.benchmark.statistics.intervals import combined_difference
from qnad_art.device.catalogue import load_device
from qnad_art.errors import ArtifactError, InvalidInputError
from qnad_evaluations.paper.claims import claims
from qnad_evaluations.paper.evidence import networks, trained_again
from qnad_evaluations.paper.figures import charts
from qnad_evaluations.paper.page import page, write_page
from qnad_evaluations.paper.plans import over_plans
from qnad_evaluations.paper.record import Header, Recorded, read_records
from qnad_evaluations.paper.side_by_side import comparisons
from qnad_evaluations.paper.suites import SIZES, find_suites
from qnad_evaluations.paper.table import table_rows
from qnad_evaluations.paper.training import training_pairs

EVALUATIONS = Path(__file__).parents[1]
FRACTIONS = (0.1, 0.3, 1.0)
DEFENCES = {
    "none": [],
    "inherent": [{"name": "inherent"}],
    **{f"uniform {f}": [{"name": "qnad-uniform", "fraction": f}] for f in FRACTIONS},
    "tuned": [{"name": "hardened", "folder": "there"}],
}
JPEG = "test images of cifar10-images.zip: a lossy (JPEG) copy, not comparable."


def record(left, *, models=("lenet5",), defences=DEFENCES, size="reduced", images=400, **header):
    """A record in which ``left(model, defence, attack, eps, rung)`` of the images are right.

    Always the easiest, so that differences between defences are as sure as they can be.
    """
    found = []
    for model in models:
        for defence in defences:
            here = {"model": model, "defence": defence}
            clean = outcomes(left(model, defence, None, 0.0, None), images=images)
            found.append(result(cell(**here), clean))
            for name in ("fgsm", "pgd-weak", "pgd-strong"):
                for eps in (0.1, 0.3):
                    for rung in ("transfer", "adaptive"):
                        share = left(model, defence, name, eps, rung)
                        of = attack(name, eps=eps, rung=rung, **here)
                        found.append(result(of, outcomes(share, images=images)))
    settings = {
        "collection": "paper",
        "size": size,
        "name": "lenet5-mnist",
        "command": "qnad paper paper/lenet5-mnist",
        "data": {"name": "mnist", "provenance": "Original pixels."},
        "models": {model: {} for model in models},
        "defences": defences,
        "versions": {"torch": "2.9.1"},
        "machine": "abacus",
        "recorded": "2026-01-01",
        "cells": len(found),
        **header,
    }
    return Recorded(Header(**settings), tuple(found))


def everywhere(gains):
    """The plain network has 50 %, and a defence so much more, whatever the attack and rung."""

    def left(model, defence, name, eps, rung):
        return 0.95 if name is None else 0.5 + gains.get(defence, 0.0)

    return left


def verdict(made, text, method, network="lenet5", name="fgsm"):
    (claim,) = (c for c in made if c.text.startswith(text) and c.method == method)
    words = {(j.network, j.attack): j.word for j in claim.judgements}
    return words[network, name], claim.word


def judged(left, again=(), **more):
    records = [record(left, **more), *again]
    return claims(networks(records), trained_again(records))


@pytest.mark.parametrize(
    ("transfer", "adaptive", "word"),
    [
        (0.1, 0.1, "reproduced"),
        (0.1, 0.0, "only under transfer"),
        (0.1, -0.1, "only under transfer"),
        (0.0, 0.1, "not reproduced"),
        (-0.1, 0.1, "not reproduced"),
    ],
)
def test_verdicts_follow_the_two_rungs(transfer, adaptive, word):
    def left(model, defence, name, eps, rung):
        gain = {"transfer": transfer, "adaptive": adaptive}.get(rung, 0.0)
        return 0.5 + gain * (defence == "inherent")

    assert verdict(judged(left), "Inherent", "inherent noise") == (word, word)


def test_what_few_images_cannot_show_is_not_reproduced():
    left = everywhere({"inherent": 0.01})
    assert verdict(judged(left, images=100), "Inherent", "inherent noise")[0] == "not reproduced"
    assert verdict(judged(left, images=2000), "Inherent", "inherent noise")[0] == "reproduced"


def test_a_claim_is_as_strong_as_its_weakest_place():
    def left(model, defence, name, eps, rung):
        return 0.5 + 0.1 * (defence == "inherent" and name != "pgd-strong")

    made = judged(left)
    assert verdict(made, "Inherent", "inherent noise") == ("reproduced", "not reproduced")
    assert made[0].count == "2 of 3"
    assert "Verdicts that both were measured for: 3; that differ: 1." in page([record(left)])


@pytest.mark.parametrize(
    ("gains", "word"),
    [
        ({0.1: 0.05, 0.3: 0.2, 1.0: 0.0}, "reproduced"),
        ({0.1: 0.05, 0.3: 0.1, 1.0: 0.2}, "not reproduced"),  # it only rises
        ({0.1: -0.1, 0.3: -0.1, 1.0: -0.2}, "not reproduced"),  # it only falls
        ({}, "not reproduced"),
    ],
)
def test_an_optimum_lies_between_the_ends(gains, word):
    made = judged(everywhere({f"uniform {f}": gain for f, gain in gains.items()}))
    assert verdict(made, "With more crosstalk", "uniform")[0] == word
    assert verdict(made, "The optimum", "uniform")[0] == "not reproduced"


def test_an_optimum_that_moves_with_the_budget():
    best = {0.1: "uniform 0.1", 0.3: "uniform 0.3"}

    def left(model, defence, name, eps, rung):
        return 0.5 + 0.1 * (defence == best.get(eps))

    assert verdict(judged(left), "The optimum", "uniform")[0] == "reproduced"


def test_only_fractions_measured_at_both_budgets_say_that_the_optimum_moves():
    """As in the record of a run that is not finished."""
    best = {0.1: "uniform 0.1", 0.3: "uniform 0.3"}

    def left(model, defence, name, eps, rung):
        return 0.5 + 0.1 * (defence == best.get(eps))

    whole = record(left)
    partly = [r for r in whole.results if (r.cell.defence, r.cell.eps) != ("uniform 0.1", 0.3)]
    partly = Recorded(whole.header, tuple(partly))
    made = claims(networks([partly]), [])
    assert verdict(made, "The optimum", "uniform")[0] == "not reproduced"


@pytest.mark.parametrize(("late", "word"), [(0.3, "reproduced"), (0.05, "not reproduced")])
def test_gains_are_larger_where_the_attack_hurts_more(late, word):
    def left(model, defence, name, eps, rung):
        if name is None:
            return 0.95
        return (0.8 if eps == 0.1 else 0.3) + (late if eps == 0.3 else 0.05) * (defence == "tuned")

    made = judged(left)
    assert verdict(made, "Larger gains", "tuned", name="all attacks")[0] == word
    assert verdict(made, "Larger gains", "uniform", name="all attacks")[0] == "not reproduced"


@pytest.mark.parametrize("second", [True, False])
def test_settings_carry_over_if_they_help_both_networks(second):
    def left(model, defence, name, eps, rung):
        helped = defence in ("uniform 0.3", "tuned") and (second or model == "lenet5")
        return 0.5 + 0.2 * helped * (name is not None)

    again = record(left, models=("lenet5", "again"), name="lenet5-mnist-carry-over")
    made = judged(left, again=[again])
    word = "reproduced" if second else "not reproduced"
    for method in ("uniform", "tuned"):
        assert verdict(made, "Noise settings carry over", method)[0] == word


def test_a_ruined_network_gains_nothing():
    """Chance is more than what an attack may leave of the plain network."""

    def left(model, defence, name, eps, rung):
        ruined = model == "again" and defence == "tuned"
        return 0.1 if ruined else 0.5 if name is None else 0.02 + 0.1 * (defence == "tuned")

    again = record(left, models=("lenet5", "again"), name="lenet5-mnist-carry-over")
    made = judged(left, again=[again])
    assert verdict(made, "Noise settings carry over", "tuned")[0] == "not reproduced"
    assert "ruined: clean 50.0 → 10.0" in page([record(left), again])


def test_the_best_of_many_has_to_be_better_than_the_only_one():
    """The same gain of 10 images in 400: chosen on the same images from 20 fractions, or not."""
    many = {f"uniform {n / 20}": [{"name": "qnad-uniform", "fraction": n / 20}] for n in range(20)}

    def left(model, defence, name, eps, rung):
        helped = 0.025 * (defence in ("uniform 0.3", "tuned") and eps == 0.3)
        return 0.95 if name is None else 1.1 - 2 * eps + helped

    defences = {name: DEFENCES[name] for name in ("none", "inherent", "tuned")} | many
    more = {"defences": defences, "images": 400}
    again = record(left, models=("lenet5", "again"), name="lenet5-mnist-carry-over", **more)
    made = judged(left, again=[again], **more)
    for text, name in (("Noise settings carry over", "fgsm"), ("Larger gains", "all attacks")):
        assert verdict(made, text, "tuned", name=name)[0] == "reproduced"
        assert verdict(made, text, "uniform", name=name)[0] == "not reproduced"


def test_the_largest_size_counts():
    quick, full = (record(everywhere({}), size=size) for size in ("quick", "full"))
    (found,) = networks([quick, full])
    assert [header.size for header in found.headers] == ["full"]


def table(plain=0.2, defended=0.9, clean=0.945, **more):
    def left(model, defence, name, eps, rung):
        if name is None:
            return 0.95 if defence == "none" else clean
        return defended if defence == "tuned" and rung == "transfer" else plain

    return record(left, **more)


def test_table_i_has_accuracies_gain_ratio_and_adaptive_rung():
    rows = {(r.attack, r.method): r for r in table_rows(networks([table()]))}
    row = rows["fgsm", "tuned"]
    assert (row.plain.value, row.defended.value) == (0.2, 0.9)
    assert row.ratio.improvement == pytest.approx(3.5)
    assert row.published == 2.3517
    assert row.gain.value == pytest.approx(0.7)
    assert row.above.value == pytest.approx(0.9 - 3.3517 * 0.2)
    assert row.above.low > 0
    assert row.clean_cost.value == pytest.approx(0.005)
    assert row.worst.low <= 0 <= row.worst.high
    assert rows["pgd-weak", "tuned"].published == rows["pgd-strong", "tuned"].published == 2.6828
    assert rows["fgsm", "inherent noise"].published == 1.44


def test_the_page_says_what_the_table_is_worth():
    text = page([table(clean=0.9)])
    assert "+350.0 %" in text
    assert "fgsm ‡, tuned, of 1 networks: significantly above the paper's in 1, within" in text
    assert "within the limit of clean accuracy in 0 (by the point value), significantly" in text
    assert "the plain network at worst in 0; all three at one operating point in 0." in text
    worse = page([table(defended=0.5)])
    assert "fgsm ‡, tuned, of 1 networks: significantly above the paper's in 0, within" in worse
    assert "not meaningful" in page([table(plain=0.02)]).split("## The paper's claims")[0]


@pytest.mark.parametrize(("gain", "together"), [(0.75, 1), (0.0, 0)])
def test_each_operating_point_is_a_row_and_one_has_to_meet_all(gain, together):
    """The first has all but clean accuracy, which the second, of another record, may give."""

    def left(model, defence, name, eps, rung):
        if name is None:
            return {"none": 0.95, "tuned": 0.9}.get(defence, 0.945)
        return 0.2 + {"tuned": 0.7, "tuned, mild": gain}.get(defence, 0.0)

    mild = {"none": [], "tuned, mild": [{"name": "hardened", "folder": "elsewhere"}]}
    records = [record(left, defences=mild, name="lenet5-mnist-mild"), record(left)]
    (evidence,) = networks(records)
    rows = {row.method: row for row in table_rows([evidence]) if row.attack == "fgsm"}
    assert evidence.tuned == "tuned"
    assert [rows[method].within_limit for method in ("tuned", "tuned, mild")] == [False, True]
    assert not rows["inherent noise"].tuned
    assert f"all three at one operating point in {together}." in page(records)


def test_a_defence_stands_against_the_plain_network_of_its_own_record():
    """Code may change between two records, so that the plain network's accuracy does."""

    def left(plain):
        return lambda model, defence, name, *_: plain if defence == "none" and name else 0.8

    later = {"none": [], "tuned, again": [{"name": "hardened", "folder": "there"}]}
    records = [record(left(0.3), defences=later, name="lenet5-mnist-again"), record(left(0.2))]
    (evidence,) = networks(records)
    rows = {row.method: row for row in table_rows([evidence]) if row.attack == "fgsm"}
    assert rows["tuned"].plain.value == 0.2
    assert rows["tuned"].gain.value == pytest.approx(0.6)
    assert rows["tuned, again"].plain.value == 0.3
    assert rows["tuned, again"].gain.value == pytest.approx(0.5)
    assert evidence.accuracy("none", "fgsm", 0.3, "transfer").value == 0.2  # the largest counts


def test_one_label_for_two_networks_is_refused():
    def with_weights(made, name):
        provenance = made.results[0].provenance.model_copy(update={"weights_hash": name * 64})
        other = [r.model_copy(update={"provenance": provenance}) for r in made.results]
        return Recorded(made.header, tuple(other))

    same = [with_weights(table(), "a"), with_weights(table(name="lenet5-mnist-mild"), "a")]
    assert len(networks(same)) == 1
    other = [with_weights(table(), "a"), with_weights(table(name="lenet5-mnist-mild"), "b")]
    with pytest.raises(ArtifactError, match=r"lenet5-mnist, .*lenet5-mnist-mild .*'lenet5'"):
        networks(other)


def test_what_a_crosstalk_plan_hangs_on_is_said():
    """Intervals leave out that a plan made anew gives another accuracy."""

    def left(share):
        return lambda model, defence, name, eps, rung: share if defence == "uniform 0.3" else 0.5

    assert "the one plan that was made.\n" in page([table()])
    again = record(left(0.7), name="lenet5-mnist-carry-over")
    text = page([record(left(0.6)), again])
    assert "differ by up to 10.0 points (lenet5, uniform 0.3, clean images: 70.0 in" in text


def test_training_budgets_stand_under_the_defences():
    defences = {
        "none": [],
        "tuned": [{"name": "hardened", "folder": "there"}],
        "tuned, 64 shots": [{"name": "hardened", "folder": "elsewhere", "shots": 64}],
        "AT": [{"name": "madry", "epochs": 5, "attack_steps": 3}],
        "AT + uniform": [
            {"name": "madry", "epochs": 5, "attack_steps": 3},
            {"name": "qnad-uniform", "fraction": 0.3},
        ],
    }
    more = {"defences": defences, "collection": "comparative"}
    plans = {"there": {"epochs": 12, "attack_steps": 5}}
    text = page([record(everywhere({}), plans=plans, **more)])
    assert "**The defences were not trained with equal budgets**" in text
    for said in (
        "*tuned*: 12 × not recorded × 5",
        "*tuned, 64 shots*: not recorded",
        "*AT*, *AT + uniform*: 5 × not recorded × 3",
    ):
        assert said in text
    assert "| elsewhere | not recorded | comparative/reduced/lenet5-mnist |" in text
    assert "| there | attack_steps 5, epochs 12 | comparative/reduced/lenet5-mnist |" in text
    plans["there"]["training_images"] = 59000
    data = {"name": "mnist", "provenance": "Original pixels.", "train_images": "10000"}
    text = page([record(everywhere({}), plans=plans, data=data, **more)])
    assert "*tuned*: 12 × 59000 × 5" in text
    assert "*AT*, *AT + uniform*: 5 × 10000 × 3" in text


def test_every_accuracy_has_defences_as_rows_and_few_columns():
    made = record(lambda model, defence, name, eps, rung: 0.9 - eps)
    text = page([made]).split("## Every accuracy")[1]
    tables = [line for line in text.splitlines() if line.startswith(("| transfer", "| adaptive"))]
    assert len(tables) == 2
    assert "fgsm L∞ ε 0.1 | fgsm L∞ ε 0.3 |" in tables[0]
    assert max(line.count("|") for line in text.splitlines()) <= 9
    assert text.count("| uniform 1.0 ‡ | 90.0 [") == 2


def test_jpeg_copies_are_said_to_be_copies():
    copies = table(data={"name": "cifar10", "provenance": JPEG})
    assert "**The CIFAR images are JPEG copies**" in page([copies])
    assert JPEG in page([copies])
    assert "JPEG" not in page([table()])


def audit(made, **gates):
    """A record with an audit cell of every defence, of which some fail a gate."""
    found = [
        result(cell("audit", defence=d), outcomes(0.9), gates=(gates.get(d, passed()),))
        for d in made.header.defences
    ]
    return Recorded(made.header, (*made.results, *found))


def test_what_failed_its_audit_or_was_not_audited_is_marked_everywhere():
    failing, unaudited, audited = audit(table(), tuned=failed()), table(), audit(table())
    for made, mark, said in ((failing, "†", "yes"), (unaudited, "‡", "**no**")):
        text = page([made])
        (evidence,) = networks([made])
        row = next(row for row in table_rows([evidence]) if row.method == "tuned")
        assert row.mark == mark
        assert f"| tuned {mark} |" in text
        assert f"lenet5 all attacks: not reproduced {mark}" in text  # a claim on the tuned
        assert f" of {made.header.cells} | {said} |" in text
        drawn = {s.name for chart in charts(evidence) for p in chart.panels for s in p.series}
        assert f"noise + tuned crosstalk {mark}" in drawn
        assert "noise + tuned crosstalk" not in drawn
    assert "- tuned: gradients exist" in page([failing])
    clean = page([audited])
    legend = "†: failed the audit, unreliable; ‡: not audited."
    assert not {"†", "‡"} & set(clean.replace(legend, ""))


def test_training_pairs_have_the_marks_of_both():
    madry = {"name": "madry", "epochs": 2}
    defences = {"none": [], "AT": [madry], "AT + tuned": [madry, {"name": "qnad-tuned"}]}
    made = record(everywhere({}), defences=defences, collection="comparative")
    text = page([audit(made, **{"AT + tuned": failed()})])
    assert "| AT | AT + tuned † |" in text


@pytest.mark.parametrize(
    ("hardest", "chosen"), [("uniform 0.3", "uniform 0.3"), ("uniform 1.0", "uniform 1.0")]
)
def test_table_i_names_the_fractions_and_judges_at_the_lower_rung(hardest, chosen):
    """The adaptive attack may be weaker than the transferred one: the lower of both counts."""

    def left(model, defence, name, eps, rung):
        if name is None:
            return 0.95
        if defence == hardest:
            return 0.5
        return {("uniform 0.1", "transfer"): 0.6, ("uniform 0.1", "adaptive"): 0.2}.get(
            (defence, rung), {"transfer": 0.3, "adaptive": 0.9}[rung] if defence == "tuned" else 0.4
        )

    made = record(left)
    rows = {r.method: r for r in table_rows(networks([made])) if r.attack == "fgsm"}
    assert rows["tuned"].worst.value == pytest.approx(-0.1)
    row = rows["uniform, best fraction"]
    assert (row.defence, row.hardest) == ("uniform 0.1", chosen)
    assert row.gain.value == pytest.approx(0.2)
    assert row.worst.value == pytest.approx(0.1)
    assert f"uniform, best fraction (uniform 0.1; at worst {chosen})" in page([made])


def test_what_holds_over_several_plans():
    """One lucky plan of three is no gain; a small one of every plan is."""
    luck, gain = {0: 0.2, 1: -0.1, 2: -0.1}, {0: 0.1, 1: 0.12, 2: 0.08}

    def left(seed):
        return everywhere({"uniform 0.3": luck[seed], "uniform 1.0": gain[seed]})

    made = [record(left(seed), collection="comparative") for seed in range(3)]
    together = Recorded(
        made[0].header,
        tuple(
            r.model_copy(
                update={"cell": r.cell.model_copy(update={"seed": seed}), "key": f"{r.key}{seed}"}
            )
            for seed, each in enumerate(made)
            for r in each.results
        ),
    )
    assert not list(over_plans(made))
    found = {(o.defence, o.under): o for o in over_plans([together])}
    assert {under for _, under in found} == {
        "clean images",
        *(f"{name} · transfer · L∞ ε 0.3" for name in ("fgsm", "pgd-weak", "pgd-strong")),
        "at worst · L∞ ε 0.3",
    }
    lucky, sure = (found[f"uniform {f}", "fgsm · transfer · L∞ ε 0.3"] for f in (0.3, 1.0))
    assert (lucky.plans, lucky.lowest, lucky.highest) == (3, 0.4, 0.7)
    assert lucky.mean.value == pytest.approx(0.5)
    assert lucky.gain.low < 0 < lucky.gain.high
    assert lucky.mean.high - lucky.mean.low > 0.3
    assert sure.gain.low > 0
    assert "## Over crosstalk plans" in page([together])


def test_training_alone_stands_against_training_with_qnad():
    madry = {"name": "madry", "epochs": 2}
    defences = {"none": [], "AT": [madry], "AT + tuned": [madry, {"name": "qnad-tuned"}]}
    made = record(
        everywhere({"AT": 0.1, "AT + tuned": 0.3}), defences=defences, collection="comparative"
    )
    pairs = list(training_pairs([made]))
    assert {(p.alone, p.together) for p in pairs} == {("AT", "AT + tuned")}
    assert len(pairs) == 1 + 3 * 2
    assert all(p.gain.value == pytest.approx(0.2) for p in pairs if "adaptive" in p.condition)
    assert "## Adversarial training, alone and with QNAD" in page([made])


def test_defences_stand_side_by_side_on_every_rung_and_at_worst():
    def left(model, defence, name, eps, rung):
        if name is None:
            return 0.9
        weaker = 0.1 * (name == "pgd-strong") + 0.2 * (rung == "adaptive") + eps / 10
        return {"none": 0.4, "AT": 0.6, "tuned": 0.8}[defence] - weaker

    defences = {
        "none": [],
        "tuned": [{"name": "hardened", "folder": "there"}],
        "AT": [{"name": "madry"}],
    }
    made = record(left, defences=defences, collection="comparative", name="lenet5-mnist-defences")
    flagged = result(cell("audit", defence="AT"), outcomes(0.9), gates=(failed(),))
    made = Recorded(made.header, (*made.results, flagged))
    (found,) = comparisons([made, table()])
    assert str(found.budget) == "L∞ ε 0.3"
    assert found.rungs == ("transfer", "adaptive")
    assert [s.defence for s in found.standings] == ["tuned", "AT", "none"]
    assert [s.mark for s in found.standings] == ["‡", "†", "‡"]
    best, _, plain = found.standings
    assert best.clean.value == 0.9
    assert best.left["transfer"].value == pytest.approx(0.67, abs=0.005)
    assert best.left["adaptive"].value == best.worst.value == pytest.approx(0.47, abs=0.005)
    assert best.gain.value == pytest.approx(0.4, abs=0.005)
    assert best.gain.low > 0
    assert plain.gain is None
    text = page([made])
    assert "**comparative/reduced/lenet5-mnist-defences: lenet5 on mnist5k" in text
    assert "| AT † |" in text


@pytest.mark.parametrize("missing", ["tuned", "none"])
def test_who_was_not_under_all_attacks_has_no_figure_at_worst(missing):
    """Equal everywhere, but PGD was not measured on one."""

    def left(model, defence, name, eps, rung):
        return 0.9 if name is None else {"fgsm": 0.6}.get(name, 0.1)

    defences = {name: DEFENCES[name] for name in ("none", "inherent", "tuned")}
    made = record(left, defences=defences, collection="comparative")
    kept = [r for r in made.results if (r.cell.defence, r.cell.attack) != (missing, "pgd-weak")]
    (found,) = comparisons([Recorded(made.header, tuple(kept))])
    without = {s.defence for s in found.standings if s.worst is None}
    assert without == {missing}
    assert found.standings[-1].defence == missing
    gains = {s.defence: s.gain for s in found.standings}
    assert (gains["inherent"] is None) == (missing == "none")
    assert gains[missing] is None
    twice = [
        r.model_copy(
            update={"cell": r.cell.model_copy(update={"seed": seed}), "key": f"{r.key}{seed}"}
        )
        for seed in (0, 1)
        for r in kept
    ]
    over = {(o.defence, o.under) for o in over_plans([Recorded(made.header, tuple(twice))])}
    assert ("inherent", "at worst · L∞ ε 0.3") in over
    assert ("tuned", "at worst · L∞ ε 0.3") not in over or missing == "none"


def test_each_network_counts_at_its_own_lowest():
    """Ties are common at 0: where the plain network is at 0 too, nothing can be below it."""

    def left(model, defence, name, eps, rung):
        if name is None:
            return 0.9
        if defence == "tuned":
            return 0.0
        return 0.7 if (name, rung) == ("pgd-strong", "adaptive") else 0.0

    defences = {"none": [], "tuned": [{"name": "hardened", "folder": "there"}]}
    made = record(left, defences=defences, collection="comparative")
    made = Recorded(made.header, tuple(sorted(made.results, key=lambda r: r.cell.rung or "")))
    (found,) = comparisons([made])
    (gain,) = (s.gain for s in found.standings if s.defence == "tuned")
    assert gain.value == 0
    assert gain.low < 0 < gain.high


def test_records_come_back_and_damaged_ones_are_refused(tmp_path):
    made = table(failures=(("a cell", "it broke"),))
    path = made.write(tmp_path)
    assert path == tmp_path / "paper" / "reduced" / "lenet5-mnist.jsonl"
    assert read_records(tmp_path) == [made]
    assert "it broke" in page([made])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        ArtifactError, match=r"lenet5-mnist\.jsonl, line \d+, .*EOF.*record the suite"
    ):
        read_records(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(ArtifactError, match="line 1"):
        read_records(tmp_path)
    with pytest.raises(ArtifactError, match="no records"):
        write_page(tmp_path / "elsewhere")


def test_the_page_is_made_from_its_records_alone(tmp_path):
    for made in (table(), table(size="quick")):
        made.write(tmp_path / "results")
    path = write_page(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert text == page(read_records(tmp_path / "results"))
    shown = [line.rpartition("](")[2].rstrip(")") for line in text.splitlines() if line[:2] == "!["]
    assert len(shown) == 2
    assert all((tmp_path / figure).stat().st_size > 10_000 for figure in shown)


def test_the_committed_page_is_what_its_records_give():
    records = read_records(EVALUATIONS / "results")
    assert records
    assert (EVALUATIONS / "RESULTS.md").read_text(encoding="utf-8") == page(records)


@pytest.mark.parametrize("size", SIZES)
def test_the_suites_can_be_read_and_name_no_place_of_this_machine(size):
    found = find_suites(size)
    assert {suite.collection for suite in found} == {"paper", "comparative"}
    for suite in found:
        content = suite.load(Path("w"), Path("h"))
        assert content.name.endswith(f"-{size}")
        for model in content.models.values():
            assert model.weights is None or Path(model.weights).parent == Path("w").resolve()
        assert "/home" not in suite.path.read_text()


def test_the_suites_name_the_devices_of_their_records():
    records = {made.header.place: made for made in read_records(EVALUATIONS / "results")}
    compared = 0
    for suite in (suite for size in SIZES for suite in find_suites(size)):
        if suite.place not in records:
            continue
        devices = suite.load(Path("w"), Path("h")).devices
        results = records[suite.place].results
        recorded = {(r.cell.device, r.provenance.device_hash) for r in results}
        for label, digest in recorded:
            if digest is not None:
                assert load_device(devices[label]).hash == digest, (suite.place, label)
                compared += 1
    assert compared >= len(records)


def test_suites_are_chosen_by_name():
    (chosen,) = find_suites("reduced", ["paper/alexnet-cifar10"])
    assert chosen.place.as_posix() == "paper/reduced/alexnet-cifar10"
    with pytest.raises(InvalidInputError, match="paper/lenet5-mnist"):
        find_suites("reduced", ["paper/resnet"])


def test_differences_of_gains_have_the_interval_that_scipy_gives():
    rng = np.random.default_rng(0)
    parts = [(w, rng.random((1, 500)) < p) for w, p in ((1, 0.7), (-1, 0.4), (-1, 0.6), (1, 0.5))]
    found = combined_difference(parts, level=0.99, resamples=20_000)
    values = sum(weight * part[0] for weight, part in parts)
    expected = bootstrap(
        (values,), np.mean, confidence_level=0.99, n_resamples=20_000, rng=1
    ).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.01)
    narrower = combined_difference(parts, level=0.9, resamples=20_000)
    assert found.low < narrower.low < narrower.high < found.high


def test_a_curve_is_drawn_only_where_it_was_measured_at_every_budget():
    made = record(everywhere({}))
    gap = Recorded(
        made.header,
        tuple(
            r
            for r in made.results
            if (r.cell.defence, r.cell.attack, r.cell.eps) != ("uniform 0.3", "fgsm", 0.1)
        ),
    )
    (against_budget, *_) = charts(*networks([audit(gap)]))
    drawn = {panel.title: {s.name for s in panel.series} for panel in against_budget.panels}
    missing = "noise + uniform crosstalk, 30% of weights"
    assert missing not in drawn["fgsm · transfer"]
    assert missing in drawn["pgd-weak · transfer"]
    assert "noise + tuned crosstalk" in drawn["fgsm · transfer"]
