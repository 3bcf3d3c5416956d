import pytest
from typer.testing import CliRunner

from qnad_art.bench_tuning import bench_tuning
from qnad_art.cli import app
from qnad_art.errors import InvalidInputError


def test_variants_and_ratios():
    weights, *crosstalk = bench_tuning("lenet5", batch_size=4, attack_steps=1, repeats=2)
    assert (weights.ratio, weights.low, weights.high) == (1, 1, 1)
    assert [t.variant for t in crosstalk] == ["crosstalk, expectation", "crosstalk, shots"]
    for timing in (weights, *crosstalk):
        assert timing.model == "lenet5"
        assert timing.seconds > 0
        assert 0 < timing.low <= timing.ratio <= timing.high


def test_one_repeat_has_no_quartiles():
    with pytest.raises(InvalidInputError, match="at least 2"):
        bench_tuning("lenet5", batch_size=4, repeats=1)


def test_the_command_prints_ratios_and_the_target():
    arguments = ["bench", "tuning", "--model", "lenet5", "--batch-size", "4", "--repeats", "2"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    for word in ("weights", "crosstalk, expectation", "crosstalk, shots", "Target: at most 1.5"):
        assert word in result.output
