import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from qnad_art import __version__
from qnad_art.cli import app, main
from qnad_art.device.profile import DeviceProfile

run = CliRunner().invoke


def test_version_and_help_do_not_import_heavy_libraries():
    code = (
        "import sys; from typer.testing import CliRunner; from qnad_art.cli import app;"
        "result = CliRunner().invoke(app, ['--version']); print(result.output.strip());"
        "print([m for m in ('torch', 'qiskit', 'art', 'matplotlib') if m in sys.modules])"
    )
    lines = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert lines == [f"qnad-art {__version__}", "[]"]


def test_devices_list_names_the_default_device():
    result = run(app, ["devices", "list"])
    assert result.exit_code == 0
    assert {"ideal", "ibm_nairobi", "ibm_sherbrooke"} <= set(result.output.split())


def test_devices_list_says_which_have_a_lever_and_which_machines_are_live():
    lines = run(app, ["devices", "list"]).output.splitlines()
    rows = {words[0]: words[1:] for words in map(str.split, lines) if words}
    assert next(iter(rows)) == "device"
    assert rows["ibm_nairobi"] == ["7", "cx", "2024", "0.248", "3.24", "enough", "retired"]
    assert rows["ibm_torino"][1] == "cz"
    assert rows["ibm_torino"][-2:] == ["weak", "retired"]
    assert rows["ibm_boston"][-2:] == ["weak", "live"]
    assert rows["ibm_geneva"][-2:] == ["none", "retired"]
    assert rows["ideal"] == ["7", "cx", "0.000", "0.00", "none", "model"]


def test_devices_show_prints_qubits_and_rates():
    result = run(app, ["devices", "show", "ibm_nairobi"])
    assert result.exit_code == 0
    assert "7 qubits" in result.output
    assert "176.7" in result.output  # kHz of the strongest ZZ coupling
    assert "hamiltonian" in result.output
    assert "11 of 26 gates are at their relaxation floor" in result.output
    assert "Worst: cx on 3, 5, 2.72e-02 instead of 1.26e-02." in result.output
    for model, more in (("paper", True), ("echoed", False)):
        other = run(app, ["devices", "show", f"ideal[crosstalk={model}]"]).output
        assert "0 of 26 gates are at their relaxation floor." in other
        assert ("comes on top" in other) == more


def test_exported_device_can_be_used_again(tmp_path):
    path = tmp_path / "mine.json"
    assert run(app, ["devices", "export", "ibm_nairobi", str(path)]).exit_code == 0
    assert DeviceProfile.load(path).name == "ibm_nairobi"
    result = run(app, ["verify", "--device", str(path), "--products", "5", "--shots", "0"])
    assert result.exit_code == 0, result.output


def test_verify_compares_the_products_of_a_mapping():
    arguments = ["verify", "--mapping", "linear", "--products", "5", "--shots", "0"]
    result = run(app, arguments)
    assert result.exit_code == 0, result.output
    assert "mapping linear" in result.output


def test_verify_passes_and_fails_by_tolerance():
    arguments = ["verify", "--products", "20", "--shots", "1024", "--readout", "twirled"]
    passed = run(app, arguments)
    assert passed.exit_code == 0, passed.output
    assert "pass" in passed.output
    failed = run(app, [*arguments, "--tolerance", "1e-30"])
    assert failed.exit_code == 1
    assert "FAIL" in failed.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "--device", "ibm_nairobbi"], "Did you mean 'ibm_nairobi'"),
        (["verify", "--readout", "loud"], "twirled"),
        (["verify", "--mapping", "linaer"], "Did you mean 'linear'"),
        (["verify", "--mapping", "linear", "--steps", "1"], "leave out --mapping"),
        (["verify", "--products", "0"], "at least 1"),
        (["verify", "--shots", "-1"], "-1"),
        (["verify", "--tolerance", "-1"], "tolerance is -1"),
        (["quickstart", "--device", "nowhere.json"], "does not exist"),
        (["quickstart", "--shots", "0"], "shots is 0"),
        (["quickstart", "--output", __file__], "is a file"),
        (["train", "lenet5", "--data", "digits", "--output", "/"], "is a folder"),
        (["train", "lenet5", "--data", "./nowhere"], "./nowhere does not exist"),
        (
            ["train", "lenet5", "--data", "digits", "--output", f"{__file__}/x"],
            "not a writable folder",
        ),
        (["evaluate", "suite.yaml", "--engine", "dusk", "--dry-run"], "Did you mean 'dask'"),
        (["devices", "export", "ibm_nairobi", f"{__file__}/x.json"], "x.json cannot be written"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["qnad", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    output = capsys.readouterr().err
    assert stopped.value.code == 1
    assert output.startswith("Error:")
    assert message in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_quickstart_measures_every_cell(tmp_path):
    folder = tmp_path / "out"
    result = run(app, ["quickstart", "--fast", "--output", str(folder)], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    written = json.loads((folder / "quickstart.json").read_text())
    assert (folder / "quickstart.png").read_bytes().startswith(b"\x89PNG")
    cells = {
        (c["network"], c["attack"], c["rung"], c["epsilon"]): c["accuracy"]
        for c in written["cells"]
    }
    assert len(cells) == 4 * (1 + 2 * 2 * 2)
    assert cells["plain", "", "", 0] > 0.9
    assert abs(cells["noise", "", "", 0] - cells["plain", "", "", 0]) < 0.03
    for network in ("plain", "noise", "uniform crosstalk", "tuned crosstalk"):
        assert cells[network, "PGD", "white-box", 0.1] < cells[network, "", "", 0]
        assert cells[network, "PGD", "white-box", 0.3] <= cells[network, "PGD", "white-box", 0.1]
    assert (
        cells["tuned crosstalk", "FGSM", "transfer", 0.3] > cells["plain", "FGSM", "transfer", 0.3]
    )
    assert written["products_per_image"] == 406_656
    assert written["products_with_biases"] == 413_174


def test_quickstart_says_what_it_kept(tmp_path, monkeypatch):
    def stopped(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("qnad_art.quickstart.story.run_quickstart", stopped)
    folder = tmp_path / "out"
    nothing = run(app, ["quickstart", "--fast", "--output", str(folder)])
    folder.mkdir()
    something = run(app, ["quickstart", "--fast", "--output", str(folder)])
    assert nothing.exit_code == something.exit_code == 130
    assert "nothing was kept" in nothing.output
    assert "repeat the command to continue" in " ".join(something.output.split())


def test_training_says_what_it_trains_on(tmp_path):
    output = tmp_path / "weights.safetensors"
    arguments = ["train", "lenet5", "--data", "digits", "--epochs", "1", "--resume"]
    done = run(app, [*arguments, "--images", "100", "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert "Using 100 of them, drawn with seed 0." in done.output
    assert "Holding out 10 of them for validation" in done.output
    assert "starting from the beginning" in done.output
