"""The search: repeatable, resumable to the total, its front not dominated, its commands usable."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import optuna
import pytest
from art_fixtures import images, network, plain
from small_runs import SEARCH as QUICK
from small_runs import searched
from typer.testing import CliRunner

from qnad_art.accuracy import Proportion
from qnad_art.cli import app
from qnad_art.errors import ArtifactError, InvalidInputError, UnknownNameError
from qnad_art.models.weights import save_weights
from qnad_art.search.pareto import SearchResult, Trial, pareto_figure
from qnad_art.search.study import search


def made_up(points, images=100):
    """A result with the given numbers of right answers."""
    trials = tuple(
        Trial(n, {"fraction": 0.1}, Proportion(c, images), Proportion(r, images), 0.1, 1.0)
        for n, (c, r) in enumerate(points, 1)
    )
    return SearchResult(QUICK, trials)


@pytest.fixture(scope="module")
def whole():
    return searched()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_weights(network(), path)
    return path


class TestSearch:
    def test_a_seed_decides_every_trial(self, whole):
        assert searched() == whole
        assert all(0 < trial.achieved <= trial.settings["fraction"] for trial in whole.trials)
        assert searched(replace(QUICK, seed=1, trials=1)).trials[0].settings != (
            whole.trials[0].settings
        )

    def test_settings_stay_in_their_ranges_or_where_they_are_held(self):
        held = replace(QUICK, fraction=(0.25, 0.25), shots=(300, 900), trials=1)
        trial = searched(held).trials[0]
        assert trial.settings["fraction"] == 0.25
        assert trial.settings["shots"] in (300, 900)
        for name in ("max_pairs", "robust_weight", "learning_rate", "headroom", "percentile"):
            low, high = getattr(held, name)
            assert low <= trial.settings[name] <= high
        assert 0.05 <= trial.settings["epsilon"] <= 0.3  # relative to the budget judged at

    def test_stopped_and_resumed_it_goes_the_same_way_to_the_total(
        self, whole, tmp_path, monkeypatch
    ):
        settings = replace(QUICK, storage=tmp_path / "new" / "study.db")
        seen = []
        with monkeypatch.context() as patch:
            patch.setattr("qnad_art.search.study.count_robust", _third_time_ctrl_c())
            with pytest.raises(KeyboardInterrupt):
                searched(settings, on_trial=seen.append)
        assert [trial.number for trial in seen] == [1, 2]
        _leave_a_running_trial(settings)
        resumed = searched(settings, on_trial=seen.append)
        assert [trial.number for trial in seen] == [1, 2, 3]
        assert resumed.trials == whole.trials
        assert searched(settings, on_trial=seen.append).trials == whole.trials
        assert len(seen) == 3

    def test_a_storage_of_another_search_is_refused(self, tmp_path):
        settings = replace(QUICK, storage=tmp_path / "study.db", trials=1)
        searched(settings)
        with pytest.raises(ArtifactError, match=r"epsilon is 0\.1 there and 0\.2 here"):
            searched(replace(settings, epsilon=0.2))
        other = images("digits", "train").take(60)
        with pytest.raises(ArtifactError, match="data and network"):
            search(plain(), other.x, other.y, settings)
        foreign = tmp_path / "foreign.db"
        foreign.write_text("not a data base, but long enough to be read as the header of one")
        with pytest.raises(ArtifactError, match="Give a new file"):
            searched(replace(settings, storage=foreign))

    def test_another_mapping_is_recorded_and_the_default_is_not(self):
        """Studies of earlier versions name no mapping, and go on."""
        assert "mapping" not in QUICK.recorded()
        assert replace(QUICK, mapping="linear").recorded()["mapping"] == "linear"

    def test_images_to_judge_on_are_never_tuned_on(self, monkeypatch):
        parts = {}
        monkeypatch.setattr("qnad_art.search.study._judge", _recording(parts))
        some = images("digits", "train").take(80)
        search(plain(), some.x, some.y, replace(QUICK, trials=1))
        (x, _), (held, labels) = parts["tuning"], parts["judging"]
        assert (len(x), len(held), len(labels)) == (64, 16, 16)
        kept = {image.tobytes() for image in some.x}
        assert {image.tobytes() for image in np.concatenate([x, held])} == kept
        assert not {image.tobytes() for image in x} & {image.tobytes() for image in held}

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"trials": 0}, InvalidInputError, "trials is 0"),
            ({"epsilon": 0.0}, InvalidInputError, "epsilon"),
            ({"fraction": (0.5, 0.1)}, InvalidInputError, "fraction"),
            ({"validation_fraction": 1.0}, InvalidInputError, "validation_fraction"),
            ({"tuning": {"fraction": 0.1}}, InvalidInputError, "low = high"),
            ({"tuning": {"patienc": 1}}, UnknownNameError, "patience"),
            ({"device": "ibm_nairobbi"}, UnknownNameError, "ibm_nairobi"),
        ],
    )
    def test_wrong_settings(self, changes, error, message):
        with pytest.raises(error, match=message):
            searched(replace(QUICK, **changes))


def _third_time_ctrl_c():
    from qnad_art.search.study import count_robust

    calls = []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return count_robust(*arguments, **options)

    return interrupted


def _leave_a_running_trial(settings):
    """As a power cut would."""
    study = optuna.load_study(study_name="qnad", storage=f"sqlite:///{settings.storage}")
    study.ask()
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "COMPLETE", "FAIL", "RUNNING"]


def _recording(parts):
    def judge(classifier, tuning, judging, chosen, settings):
        parts.update(tuning=tuning, judging=judging)
        return Proportion(1, 2), Proportion(1, 2), 0.1

    return judge


class TestFront:
    def test_it_is_all_that_no_trial_dominates(self):
        rng = np.random.default_rng(0)
        points = rng.integers(0, 12, (60, 2))
        front = {trial.number for trial in made_up(points.tolist()).front}
        for n, (c, r) in enumerate(points, 1):
            no_worse = (points >= (c, r)).all(1)
            assert (n in front) == (not (no_worse & (points > (c, r)).any(1)).any())

    def test_it_goes_from_the_most_robust_to_the_cleanest(self):
        result = made_up([(90, 10), (50, 50), (70, 30), (50, 40)])
        assert [trial.number for trial in result.front] == [2, 3, 1]

    @pytest.mark.parametrize("points", [[(50, 50)], [(90, 10), (50, 50), (40, 40)]])
    def test_the_figure_is_a_png(self, points):
        assert pareto_figure(made_up(points)).startswith(b"\x89PNG")


class TestCommand:
    def run(self, *arguments):
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(app, words, env={"COLUMNS": "160"})

    def test_the_front_comes_as_table_figure_json_and_commands(
        self, weights, tmp_path, monkeypatch
    ):
        from qnad_art.datasets import dataset as datasets

        original = datasets.load_dataset
        splits = []

        def watched(name, split="test", **options):
            splits.append(split)
            return original(name, split, **options)

        monkeypatch.setattr(datasets, "load_dataset", watched)
        output = tmp_path / "found"
        command = (
            *("tune", weights, "--search", "--data", "digits", "--images", 80, "--epsilon", "1/10"),
            *("--trials", 2, "--epochs", 1, "--attack-steps", 1, "--fraction", 0.2),
            *("--storage", tmp_path / "study.db", "--output", output),
        )
        done = self.run(*command)
        assert done.exit_code == 0, done.output
        for words in ("trial 1/2", "trial 2/2", "Pareto front of 2 trials", "pareto.png"):
            assert words in done.output
        assert splits == ["train"]
        assert (output / "pareto.png").read_bytes().startswith(b"\x89PNG")
        found = json.loads((output / "search.json").read_text())
        assert [trial["settings"]["fraction"] for trial in found["trials"]] == [0.2, 0.2]
        assert set(found["harden"]) == {str(number) for number in found["front"]}
        line = next(iter(found["harden"].values()))
        assert line in done.output
        assert self.run(*command).output.count("trial ") == 1  # in the table: all were there
        hardened = self.run(
            *shlex.split(line)[1:], "--test-images", 10, "--output", tmp_path / "hard"
        )
        assert hardened.exit_code == 0, hardened.output
        card = json.loads((tmp_path / "hard.card.json").read_text())
        tried = found["trials"][int(next(iter(found["harden"]))) - 1]["settings"]
        shared = card["strategy_settings"].keys() & tried.keys()
        assert {name: card["strategy_settings"][name] for name in shared} == {
            name: tried[name] for name in shared
        }
        assert {"fraction", "epsilon", "learning_rate", "robust_weight", "max_pairs"} <= shared

    def test_ctrl_c_says_how_to_go_on(self, weights, tmp_path, monkeypatch):
        def stop(*arguments, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr("qnad_art.search.study.search", stop)
        command = ("tune", weights, "--search", "--data", "digits", "--epsilon", "0.1")
        stopped = self.run(*command)
        assert stopped.exit_code == 130
        assert "--storage" in stopped.output
        stopped = self.run(*command, "--storage", tmp_path / "s.db")
        assert "repeat the command" in stopped.output


def test_the_package_does_not_import_optuna():
    code = "import sys, qnad_art, qnad_art.cli; qnad_art.QNAD; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
