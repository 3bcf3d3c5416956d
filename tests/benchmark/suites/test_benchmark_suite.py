"""Suites: what they may say, what they mean, and what names the work that follows from them."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml

from qnad_art.benchmark.run.estimate import EXACT_FACTOR, estimate
from qnad_art.benchmark.run.planner import workload_of
from qnad_art.benchmark.run.tasks import Fit, Network, Transfer
from qnad_art.benchmark.suites.documents import read_document
from qnad_art.benchmark.suites.schema import suite_schema
from qnad_art.benchmark.suites.sources import images_of_seed, load_images
from qnad_art.benchmark.suites.suite import Suite, load_suite
from qnad_art.device.catalogue import load_device
from qnad_art.errors import InvalidInputError, QnadError
from qnad_art.models.architectures import build_model
from qnad_art.models.weights import save_weights

SUITES = Path(__file__).parents[3] / "evaluations" / "suites"

BASE = {
    "name": "base",
    "data": {"name": "digits", "images": 20, "train_images": 50},
    "models": {"small": {"architecture": "lenet5", "epochs": 1}},
    "defences": {"none": "none", "noisy": {"name": "inherent", "shots": 64}},
    "attacks": {"fgsm": "fgsm", "pgd": {"name": "pgd", "max_iter": 3}},
    "eps": [0.1],
    "rungs": ["transfer", "white-box"],
}


def suite_of(**changes):
    return Suite.model_validate({**BASE, **changes})


def work(**changes):
    return workload_of(suite_of(**changes))


def keys(workload):
    return {str(task): task.key for task in workload.tasks}


def written(tmp_path, text):
    path = tmp_path / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


class TestDocuments:
    def test_words_and_numbers_are_what_they_look_like(self, tmp_path):
        text = "{a: no, b: 1e-3, c: 2/255, d: 010, e: true, f: null, g: 7, h: '7', i: .5, j: on}"
        value = read_document(written(tmp_path, text)).value
        assert value == {
            **{"a": "no", "b": 0.001, "c": "2/255", "d": 10.0, "e": True, "f": None},
            **{"g": 7, "h": "7", "i": 0.5, "j": "on"},
        }

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is already given in line 1"),
            ("x:\n  - {a: 1,\n     a: 2}", "line 3: the key 'a' is already given in line 2"),
            ("a: &x [1]\nb: *x", "line 2: aliases"),
            (
                "a: !!python/object/apply:os.system [ls]",
                "line 1: could not determine a constructor",
            ),
            ("a: 1\nb: [1, 2", "line 2: expected"),
            ("a: !!float .nan", "line 1: .nan is not a finite number"),
            ("[a]: 1", "line 1: a key must be a word"),
            ("", "it is empty"),
            ("a: " + "[" * 1500, "not a YAML file"),
            ("# " + "x" * 100_001, "at most 100,000"),
        ],
    )
    def test_what_is_refused(self, text, message, tmp_path):
        with pytest.raises(InvalidInputError) as refused:
            read_document(written(tmp_path, text))
        assert message in str(refused.value)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(InvalidInputError, match="No such file"):
            read_document(tmp_path / "none.yaml")


TEXT = """\
name: test
data: {name: digits, images: 20}
models: [lenet5]
defences:
  - none
  - [inherent, {name: spatial-smoothing}]
attacks:
  - fgsm
  - name: pgd
    max_iter: 3
eps: [0.1, 2/255]
"""


class TestReading:
    def test_short_forms(self, tmp_path):
        suite = load_suite(written(tmp_path, TEXT))
        assert list(suite.models) == ["lenet5"]
        assert list(suite.defences) == ["none", "inherent + spatial-smoothing"]
        assert [len(steps) for steps in suite.defences.values()] == [0, 2]
        assert list(suite.attacks) == ["fgsm", "pgd"]
        assert suite.attacks["pgd"].spec.settings == {"max_iter": 3}
        assert suite.eps == (0.1, 2 / 255)
        assert dict(suite.devices) == {"ibm_nairobi": "ibm_nairobi"}

    @pytest.mark.parametrize(
        ("before", "after", "message"),
        [
            ("images: 20", "imagse: 20", "line 2, data.imagse: Unknown key 'imagse'. Did you mean"),
            ("images: 20", "images: 20.5", "line 2, data.images: Input should be a valid integer"),
            ("images: 20", "images: -1", "line 2, data.images: Input should be greater"),
            ("digits", "digitz", "Did you mean 'digits'?"),
            ("name: test", "name: a/b", "line 1, name: String should match"),
            ("name: test\n", "", "suite: the key 'name' is missing"),
            ("[lenet5]", "[lenet]", "line 3, models.lenet: Unknown architecture 'lenet'"),
            ("[lenet5]", "{a: {epochs: 3}}", "line 3, models.a: give architecture"),
            ("[lenet5]", "{a: {weights: x.safetensors, epochs: 3}}", "is not trained here"),
            ("[lenet5]", "{a: {architecture: lenet5, epoch: 3}}", "Did you mean 'epochs'?"),
            ("[lenet5]", "[]", "line 3, models: "),
            ("- none", "- nona", "line 5, defences.nona: Unknown defence 'nona'. Did you mean"),
            ("- none", "- {name: inherent, shotz: 3}", "line 5, defences.inherent"),
            ("- fgsm", "- fgms", "line 8, attacks.fgms: Unknown attack 'fgms'. Did you mean"),
            ("- fgsm", "- pgd", "line 7, attacks: 'pgd' is in the list twice"),
            ("max_iter: 3", "max_itr: 3", "line 9, attacks.pgd: "),
            ("max_iter: 3", "max_itr: 3", "Did you mean 'max_iter'?"),
            ("2/255]", "2/0]", "line 11, eps: ε is '2/0'; it must be a number above 0"),
            ("2/255]", "1.5]", "line 11, eps: ε 1.5 for 'fgsm': pixels lie in [0, 1]"),
            ("2/255]", "0.1]", "line 11, eps: 0.1 is listed twice"),
            ("eps: [0.1, 2/255]", "eps: 0.1", "line 11, eps: give a list"),
            ("eps: [0.1, 2/255]", "eps: []", "attack 'fgsm' needs an ε"),
            ("eps:", "rungs: [whitebox]\neps:", "line 11, rungs.0: Input should be 'transfer'"),
            ("eps:", "seeds: [0, true]\neps:", "line 11, seeds.1"),
            ("eps:", "protocol: {drawz: 3}\neps:", "line 11, protocol.drawz: Unknown key 'drawz'"),
            ("eps:", "devices: [ibm_nairobbi]\neps:", "line 11, devices.ibm_nairobbi: Unknown dev"),
        ],
    )
    def test_faults_name_their_place_and_the_remedy(self, before, after, message, tmp_path):
        with pytest.raises(InvalidInputError) as refused:
            load_suite(written(tmp_path, TEXT.replace(before, after, 1)))
        assert message in str(refused.value)

    def test_all_faults_are_named_at_once(self, tmp_path):
        text = TEXT.replace("- fgsm", "- fgms").replace("images: 20", "images: none")
        with pytest.raises(InvalidInputError) as refused:
            load_suite(written(tmp_path, text))
        assert "line 2, data.images" in str(refused.value)
        assert "line 8, attacks.fgms" in str(refused.value)

    def test_paths_are_those_beside_the_suite(self, tmp_path, monkeypatch):
        monkeypatch.chdir("/")
        load_device("ideal").save(tmp_path / "mine.json")
        text = TEXT + "devices: [mine.json]\n"
        suite = load_suite(written(tmp_path, text))
        assert dict(suite.devices) == {"mine": str(tmp_path / "mine.json")}

    def test_what_is_written_out_is_the_same_suite(self, tmp_path):
        suite = load_suite(written(tmp_path, TEXT))
        stored = json.loads(json.dumps(suite.model_dump(mode="json")))
        assert Suite.model_validate(stored) == suite
        assert keys(workload_of(Suite.model_validate(stored))) == keys(workload_of(suite))

    @pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.name)
    def test_suites_that_come_with_the_project_are_valid(self, path):
        assert load_suite(path).name == path.stem

    @pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.name)
    def test_the_schema_takes_them(self, path):
        validator = jsonschema.Draft202012Validator(suite_schema())
        assert list(validator.iter_errors(yaml.safe_load(path.read_text()))) == []

    @pytest.mark.parametrize(
        "change",
        [
            {"defences": ["nona"]},
            {"attacks": {"a": {"max_iter": 3}}},
            {"rungs": ["whitebox"]},
            {"sedes": [1]},
            {"protocol": {"drawz": 1}},
            {"eps": [0]},
        ],
    )
    def test_the_schema_refuses_mistakes(self, change):
        validator = jsonschema.Draft202012Validator(suite_schema())
        assert validator.is_valid(BASE)
        assert not validator.is_valid({**BASE, **change})


class TestWork:
    def test_cells(self):
        workload = work()
        cells = [task.cell for task in workload.tasks]
        assert len(cells) == 2 * (2 + 2 * 2)
        assert [cell.kind for cell in cells[:2]] == ["clean", "audit"]
        assert {(c.attack, c.eps, c.rung) for c in cells if c.kind == "attack"} == {
            (attack, 0.1, rung) for attack in ("fgsm", "pgd") for rung in ("transfer", "white-box")
        }
        kinds = [type(p) for p in workload.preparations.values()]
        assert kinds == [Network, Transfer, Transfer]

    def test_what_cannot_be_is_left_out_and_said(self):
        attacks = {"square": {"name": "square", "max_iter": 5}, "deepfool": "deepfool"}
        workload = work(attacks=attacks, rungs=["white-box", "black-box"], eps=[0.1, 0.2])
        found = {(task.cell.attack, task.cell.eps, task.cell.rung) for task in workload.tasks}
        assert found - {(None, None, None)} == {
            ("square", 0.1, "black-box"),
            ("square", 0.2, "black-box"),
            ("deepfool", None, "white-box"),
        }
        assert workload.left_out == {
            "square is a query attack, not for the rung white-box": 4,
            "deepfool is a gradient attack, not for the rung black-box": 2,
        }

    def test_own_budgets_of_an_attack(self):
        attacks = {"pgd": "pgd", "pgd-l2": {"name": "pgd", "norm": 2, "eps": [0.5, 1.5]}}
        budgets = {(task.cell.attack, task.cell.eps) for task in work(attacks=attacks).tasks}
        assert budgets == {(None, None), ("pgd", 0.1), ("pgd-l2", 0.5), ("pgd-l2", 1.5)}

    def test_only_quantum_defences_are_repeated_for_every_device(self):
        workload = work(devices=["ibm_nairobi", "ibm_lagos"])
        devices = {(task.cell.defence, task.cell.device) for task in workload.tasks}
        assert devices == {
            ("none", "ibm_nairobi"),
            ("noisy", "ibm_nairobi"),
            ("noisy", "ibm_lagos"),
        }
        reason = "defence none uses no quantum device: only once, under ibm_nairobi"
        assert workload.left_out == {reason: 6}

    def test_a_ranking_is_not_taken_for_a_training(self):
        ranked = [{"name": "qnad-uniform"}, {"name": "qnad-uniform", "ranked_at": 0.1}]
        trained = [{"name": "madry", "epochs": 1, "attack_steps": 3}]
        trained += [{**trained[0], "epochs": 2}]
        workload = work(defences={f"{n}": step for n, step in enumerate([*ranked, *trained])})
        expected = estimate(workload).seconds
        fits = [expected[p.key] for p in workload.preparations.values() if isinstance(p, Fit)]
        one_pass = fits[0]
        assert fits == pytest.approx(
            [one_pass, 2 * one_pass, *(n * 4 * one_pass / EXACT_FACTOR for n in (1, 2))]
        )

    def test_seeds_fit_defences_on_images_of_their_own(self):
        fitted = {"plan": "qnad-uniform"}
        data, seeds = BASE["data"], [0, 1]
        all_of_them, some = (
            work(data={**data, **own}, defences=fitted, seeds=seeds)
            for own in ({}, {"fit_images": 20})
        )
        assert not {t.key for t in some.tasks} & {t.key for t in all_of_them.tasks}
        training, _ = load_images(some.source.data, None)
        first, second = (images_of_seed(some.source.data, training, seed) for seed in seeds)
        assert len(first) == len(second) == 20
        assert not np.array_equal(first.x, second.x)
        with pytest.raises(InvalidInputError, match="Cannot take 51 images"):
            work(data={**data, "fit_images": 51})

    def test_common_steps_are_prepared_once(self):
        madry = {"name": "madry", "epochs": 1}
        workload = work(
            defences={
                "AT": madry,
                "AT + noise": [madry, "inherent"],
                "AT + smoothing": [madry, "spatial-smoothing"],
            },
            devices=["ibm_nairobi", "ibm_lagos"],
        )
        (fit,) = (p for p in workload.preparations.values() if isinstance(p, Fit))
        users = {task.cell.defence for task in workload.tasks if fit.key in task.needs}
        assert users == {"AT", "AT + noise", "AT + smoothing"}
        assert "fit madry" in str(fit)

    def test_work_comes_after_what_it_needs(self):
        madry = {"name": "madry", "epochs": 1}
        workload = work(defences={"AT": madry, "twice": [madry, {"name": "madry", "epochs": 2}]})
        order = list(workload.preparations)
        for key, preparation in workload.preparations.items():
            assert all(order.index(need) < order.index(key) for need in preparation.needs)
        last = [task for task in workload.tasks if task.cell.defence == "twice"][-1]
        needed = [p.key for p in workload.preparations_for([last])]
        assert set(last.needs) <= set(needed)

    def test_the_same_cell_under_two_labels_is_refused(self):
        with pytest.raises(InvalidInputError, match="the same measurement under two labels"):
            work(defences={"a": "none", "b": "none"})


class TestKeys:
    def test_labels_and_the_rest_of_the_suite_change_nothing(self):
        before = work()
        after = work(
            name="other",
            models={"renamed": BASE["models"]["small"]},
            defences={"a": "none", "more": "spatial-smoothing", "b": BASE["defences"]["noisy"]},
            attacks={"x": BASE["attacks"]["pgd"], "y": "fgsm"},
            eps=[0.3, 0.1],
            seeds=[5, 0],
            keep_examples=True,
        )
        assert set(keys(before).values()) < set(keys(after).values())
        assert set(before.preparations) < set(after.preparations)

    @pytest.mark.parametrize(
        "change",
        [
            {"data": {**BASE["data"], "images": 21}},
            {"data": {**BASE["data"], "seed": 1}},
            {"data": {**BASE["data"], "train_images": 51}},
            {"models": {"small": {"architecture": "lenet5", "epochs": 2}}},
            {"models": {"small": {"architecture": "lenet5", "epochs": 1, "seed": 1}}},
            {"seeds": [1]},
            {"protocol": {"draws": 3}},
        ],
    )
    def test_what_every_figure_depends_on(self, change):
        assert not set(keys(work()).values()) & set(keys(work(**change)).values())

    def test_what_some_figures_depend_on(self):
        before = keys(work())

        def changed(**changes):
            after = keys(work(**changes))
            assert set(after) == set(before)
            return {name for name, key in before.items() if after[name] != key}

        def cells(word):
            return {name for name in before if word in name}

        attacks = {"fgsm": "fgsm", "pgd": {"name": "pgd", "max_iter": 4}}
        assert changed(attacks=attacks) == cells("pgd")
        defences = {"none": "none", "noisy": {"name": "inherent", "shots": 65}}
        assert changed(defences=defences) == cells("noisy")
        assert changed(devices={"ibm_nairobi": "ibm_lagos"}) == cells("noisy")

    def test_weights_count_by_content_and_not_by_path(self, tmp_path):
        sizes = {"num_classes": 10, "in_channels": 1, "image_size": 8}
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            network = build_model("lenet5", seed=seed, **sizes)
            save_weights(network, tmp_path / f"{name}.safetensors")
        a, b, c = (
            set(keys(work(models={"m": {"weights": str(tmp_path / f"{n}.safetensors")}})).values())
            for n in "abc"
        )
        assert a == b
        assert not a & c

    def test_missing_weights_are_named(self, tmp_path):
        with pytest.raises(QnadError, match=r"none\.safetensors does not exist"):
            work(models={"m": {"weights": str(tmp_path / "none.safetensors")}})

    def test_weights_for_other_images_are_refused(self):
        with pytest.raises(InvalidInputError, match="image_size"):
            work(models=["lenet5-mnist"])
