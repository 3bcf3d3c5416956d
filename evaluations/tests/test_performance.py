"""The machinery of ``qnad bench``: rounds, ratios, files, tables and verdicts (never speed)."""

import json
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from qnad_art.cli import app, main
from qnad_art.errors import ArtifactError, InvalidInputError, QnadError, UnknownNameError
from qnad_evaluations.performance.check import RESOLUTION, compare
from qnad_evaluations.performance.measurements import TITLES, Settings, measure
from qnad_evaluations.performance.pairs import Ratio, interleaved, ratio
from qnad_evaluations.performance.results import (
    Recorded,
    Result,
    compared,
    merged,
    read_results,
    write_results,
)
from qnad_evaluations.performance.tables import BEGIN, END, write_tables


class Work:
    """A clock, and work that takes the seconds it is told to; ``log`` is who worked."""

    def __init__(self, **costs):
        self.now, self.log, self.costs = 0.0, [], costs

    def __call__(self):
        return self.now

    def runs(self):
        def run(name):
            def work():
                self.log.append(name)
                self.now += self.costs[name](self.log.count(name))

            return work

        return {name: run(name) for name in self.costs}


def result(median=1.0, spread=0.1, **changes):
    case = {"network": "lenet5", "batch": 64}
    made = Ratio(median, median - spread / 2, median + spread / 2, 10)
    return replace(Result("inference", case, "shots", 0.01, "s", made, 1.5), **changes)


HERE = {"processor": "a", "torch": "1"}


class TestRounds:
    def test_in_turn_and_backwards_every_second_round(self):
        work = Work(a=lambda n: 1.0, b=lambda n: 2.0)
        interleaved(work.runs(), 4, least=0, clock=work)
        warm_up = 4
        assert work.log[warm_up:] == ["a", "b", "b", "a", "a", "b", "b", "a"]

    def test_drift_of_the_machine_cancels_in_the_ratio(self):
        work = Work(a=lambda n: 1.5**n, b=lambda n: 2 * 1.5**n)
        seconds = interleaved(work.runs(), 6, least=0, clock=work)
        assert ratio(seconds["b"], seconds["a"]) == Ratio(2.0, 2.0, 2.0, 6)

    def test_short_work_is_repeated_within_a_round(self):
        work = Work(a=lambda n: 0.25, b=lambda n: 4.0)
        seconds = interleaved(work.runs(), 2, least=2.0, clock=work)
        assert seconds == {"a": [0.25, 0.25], "b": [4.0, 4.0]}
        assert work.log.count("a") == 2 + 2 * 8
        assert work.log.count("b") == 2 + 2

    @pytest.mark.parametrize(("budget", "rounds"), [(0.5, 3), (9.0, 5), (1e9, 10)])
    def test_no_round_begins_after_the_budget_but_three_are_run(self, budget, rounds):
        work = Work(a=lambda n: 2.0)
        assert len(interleaved(work.runs(), 10, budget=budget, least=0, clock=work)["a"]) == rounds

    def test_one_round_has_no_spread(self):
        with pytest.raises(InvalidInputError, match="at least 2"):
            interleaved({}, 1)

    def test_median_and_quartiles_are_of_the_rounds_own_ratios(self):
        mine, theirs = [2, 30, 4, 50, 9], [1, 10, 1, 10, 1]  # 2, 3, 4, 5, 9
        assert ratio(mine, theirs) == Ratio(4.0, 3.0, 5.0, 5)


class TestResults:
    def test_ratios_are_to_the_first(self):
        found = compared("x", {}, {"plain": [1, 2], "noisy": [2, 4]}, targets={"noisy": 1.5})
        plain, noisy = found
        assert plain.ratio.median == 1
        assert plain.met is None
        assert (noisy.ratio.median, noisy.value, noisy.met) == (2, 3, False)

    def test_a_target_without_ratio_is_of_the_value(self):
        (only,) = compared("x", {}, {"import": [0.25, 0.25]}, targets={"import": 0.25})
        assert only.ratio is None
        assert only.met is True

    def test_file(self, tmp_path):
        path = tmp_path / "results.json"
        recorded = {"inference": Recorded(HERE, (result(), result(variant="x", ratio=None)))}
        write_results(path, recorded)
        assert read_results(path) == recorded
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        "content", ["[]", "{", '{"version": 9}', '{"version": 1, "measurements": {"x": {}}}']
    )
    def test_foreign_files(self, content, tmp_path):
        path = tmp_path / "results.json"
        path.write_text(content)
        with pytest.raises(ArtifactError, match=r"results\.json"):
            read_results(path)

    def test_new_results_replace_those_of_their_case(self):
        other = result(case={"network": "alexnet", "batch": 64})
        old = {"inference": Recorded(HERE, (result(1.0), other)), "suite": Recorded({}, ())}
        new = merged(old, [result(2.0)], HERE)
        assert new == {**old, "inference": Recorded(HERE, (result(2.0), other))}

    def test_results_of_another_machine_are_not_mixed_in(self):
        old = {"inference": Recorded({"processor": "b"}, (result(variant="expectation"),))}
        assert merged(old, [result()], HERE) == {"inference": Recorded(HERE, (result(),))}


class TestCheck:
    def verdict(self, now, then):
        (found,) = compare([now], {"inference": Recorded(HERE, (then,))})
        return found

    def test_beyond_the_noise_of_both(self):
        noise = (0.3**2 + 0.4**2) ** 0.5
        for change, slower in ((0.9, False), (1.1, True), (-5.0, False)):
            now = result(2.0 + change * noise, 0.3)
            found = self.verdict(now, result(2.0, 0.4))
            assert found.noise == pytest.approx(0.5)
            assert found.slower is slower

    def test_ratios_without_spread_have_the_clock_s_resolution(self):
        then = result(1.0, 0.0)
        assert not self.verdict(result(1 + 0.9 * RESOLUTION, 0.0), then).slower
        assert self.verdict(result(1 + 1.1 * RESOLUTION, 0.0), then).slower

    def test_only_ratios_of_the_same_case_are_compared(self):
        then = {"inference": Recorded(HERE, (result(variant="plain"), result(ratio=None)))}
        with pytest.raises(InvalidInputError, match="recorded"):
            compare([result(), result(variant="x")], then)


class TestTables:
    PAGE = f"# Mine\n\nbefore\n{BEGIN}\nold\n{END}\nafter\n"

    def test_between_the_markers_and_nowhere_else(self, tmp_path):
        page = tmp_path / "README.md"
        page.write_text(self.PAGE)
        recorded = {"inference": Recorded(HERE, (result(1.75),))}
        for _ in range(2):  # again and again
            write_tables(page, recorded)
        text = page.read_text()
        assert text.startswith(f"# Mine\n\nbefore\n{BEGIN}\n")
        assert text.endswith(f"{END}\nafter\n")
        assert "old" not in text
        assert (
            text.count("| lenet5 | 64 | shots | 10 ms | 1.75 | 1.70–1.80 | 10 | 1.5 **missed** |")
            == 1
        )
        assert "processor a, torch 1" in text
        assert TITLES["inference"] in text

    @pytest.mark.parametrize("page", [None, "no markers", f"{BEGIN}", f"{END}{BEGIN}"])
    def test_pages_without_markers(self, page, tmp_path):
        path = tmp_path / "README.md"
        if page is not None:
            path.write_text(page)
        with pytest.raises(ArtifactError, match=r"README\.md"):
            write_tables(path, {})
        assert page is None or path.read_text() == page


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"rounds": 1}, "at least 2"),
            ({"budget": 0}, "above 0"),
            ({"batches": (0,)}, "at least 1"),
            ({"precisions": ("float8",)}, "bfloat16"),
            ({"places": ("tpu",)}, "cuda"),
        ],
    )
    def test_impossible(self, settings, message):
        with pytest.raises(QnadError, match=message):
            Settings(**settings)

    def test_quick_takes_one_network_and_the_middle_size(self):
        quick = Settings(quick=True)
        assert quick.networks(("a", "b")) == ("a",)
        assert quick.sizes((1, 64, 256)) == (64,)
        assert Settings(quick=True, models=("c",), batches=(3,)).networks(("a",)) == ("c",)

    def test_unknown_measurement(self):
        with pytest.raises(UnknownNameError, match="inference"):
            list(measure("inferences", Settings()))


SMALL = ("--models", "lenet5", "--batch", "2", "--precision", "float32", "--on", "cpu")


@pytest.fixture
def bench():
    def run(*arguments):
        command = ["bench", *arguments, "--rounds", "2", "--budget", "0.01"]
        return CliRunner().invoke(app, command, env={"COLUMNS": "80"})

    return run


class TestCommand:
    def test_measures_writes_and_tabulates(self, bench, tmp_path):
        output, page = tmp_path / "results.json", tmp_path / "README.md"
        page.write_text(TestTables.PAGE)
        where = ("--output", str(output), "--table", str(page))
        done = bench("inference", "tuning", *SMALL, *where)
        assert done.exit_code == 0, done.output
        recorded = read_results(output)
        assert list(recorded) == ["inference", "tuning"]
        names = [row.variant for row in recorded["inference"].results]
        assert names == ["plain", "expectation", "shots"]
        names = [row.variant for row in recorded["tuning"].results]
        assert names == ["weights", "crosstalk, expectation", "crosstalk, shots"]
        for part in recorded.values():
            assert part.results[0].ratio.median == 1
            for row in part.results:
                assert row.value > 0
                assert 0 < row.ratio.low <= row.ratio.median <= row.ratio.high
        for text in (done.output, page.read_text()):
            assert all(word in text for word in ("crosstalk,", "expectation", "target"))
        assert "…" not in done.output  # nothing is cut

    @pytest.mark.parametrize(("factor", "status"), [(1e6, 0), (1e-6, 1)])
    def test_check(self, factor, status, bench, tmp_path):
        path = tmp_path / "results.json"
        bench("inference", *SMALL, "--output", str(path))
        content = json.loads(path.read_text())
        for row in content["measurements"]["inference"]["results"]:
            row["ratio"] |= {
                name: factor * row["ratio"][name] for name in ("median", "low", "high")
            }
        path.write_text(json.dumps(content))
        done = bench("inference", *SMALL, "--check", "--recorded", str(path))
        assert done.exit_code == status, done.output
        assert ("SLOWER" in done.output) == bool(status)
        assert "[" not in done.output  # colours are no text

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("inferences",), "Did you mean 'inference'"),
            (("--table", "x.md"), "--output"),
            (("inference", "--models", "lenet"), "lenet5"),
            (("inference", "--rounds", "1"), "at least 2"),
            (("inference", "--check", "--recorded", "missing.json"), "missing.json"),
        ],
    )
    def test_errors(self, arguments, message, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["qnad", "bench", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 1
        assert message in capsys.readouterr().err

    def test_every_measurement_is_named_in_the_help(self, bench):
        text = bench("--help").output
        assert all(name in text for name in TITLES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["startup", "memory", "attack", "conversion", "products", "growth"]
)
def test_every_measurement_gives_results(name):
    settings = Settings(models=("lenet5",), batches=(2,), rounds=2, budget=0.01, quick=True)
    found = list(measure(name, settings))
    assert found
    assert all(row.measurement == name and row.value > 0 for row in found)
    assert len({row.key for row in found}) == len(found)
    if name == "products":
        rates = {row.variant: row.value for row in found}
        assert rates["compiled, expectation"] > 100 * rates["Aer, density matrix"]


@pytest.mark.slow
def test_suites_run_on_one_and_two_workers():
    one, two = measure("suite", Settings(quick=True))
    assert (one.variant, two.variant) == ("local, 1 worker", "local, 2 workers")
    assert one.ratio.median == 1
    assert two.value > 0
