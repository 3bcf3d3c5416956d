"""Whole time steps against the compiled products: all models, and mutations that must show."""

import re

import pytest
from typer.testing import CliRunner

from qnad_art.circuits import words
from qnad_art.cli import app
from qnad_art.device.catalogue import load_device
from qnad_art.engines import verify_steps as steps
from qnad_art.engines.verify_steps import verify_steps
from qnad_art.errors import InvalidInputError

MODELS = ("paper", "static-zz", "echoed")


def nairobi(model, **factors):
    return load_device("ibm_nairobi").changed(factors, crosstalk_model=model)


@pytest.mark.parametrize("readout", ["twirled", "raw"])
@pytest.mark.parametrize("model", MODELS)
def test_every_product_of_a_step_is_as_compiled(model, readout):
    found = verify_steps(nairobi(model), steps=6, readout=readout)
    assert found.passed
    assert found.largest_difference < 1e-12
    assert found.injected > 3
    assert found.largest_cluster == (3 if model == "paper" else 7)
    assert (found.met > 0) == (model != "paper")


@pytest.mark.parametrize("echo", [False, True])
def test_of_detuned_qubits(echo):
    profile = nairobi("echoed")
    qubits = [q.model_copy(update={"detuning": 1e4 * i}) for i, q in enumerate(profile.qubits)]
    found = verify_steps(profile.model_copy(update={"qubits": qubits}), steps=6, echo=echo)
    assert found.injected > 3
    assert found.largest_difference < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ibm_mumbai", "ibm_sherbrooke", "ibm_torino"])
@pytest.mark.parametrize("model", MODELS)
def test_on_large_devices(name, model):
    profile = load_device(name).changed({}, crosstalk_model=model)
    assert verify_steps(profile, steps=10).largest_difference < 1e-12


class TestMutations:
    """The steps are run on another device, or otherwise, than the products were compiled for."""

    def run(self, monkeypatch, change, model="echoed"):
        whole = steps.run_step

        def mutated(errors, step, readout):
            return whole(*change(errors, step), readout)

        monkeypatch.setattr(steps, "run_step", mutated)
        return verify_steps(nairobi(model), steps=8)

    @pytest.mark.parametrize("model", ["static-zz", "echoed"])
    def test_a_coupling_off_by_a_hundredth_of_a_percent(self, monkeypatch, model):
        other = steps.DeviceErrors(nairobi(model, zz=1.0001))
        assert not self.run(monkeypatch, lambda errors, step: (other, step), model).passed

    def test_a_gate_of_another_duration(self, monkeypatch):
        profile = nairobi("echoed")
        edges = [e.model_copy(update={"duration": e.duration * 1.001}) for e in profile.edges]
        other = steps.DeviceErrors(profile.model_copy(update={"edges": edges}))
        assert not self.run(monkeypatch, lambda errors, step: (other, step)).passed

    def test_another_polarity(self, monkeypatch):
        def flipped(errors, step):
            own = [p.count if p.site.next_to is not None else -p.count for p in step]
            changed = [
                steps.StepProduct(p.site, count, p.theta, p.phi)
                for p, count in zip(step, own, strict=True)
            ]
            return errors, changed

        assert not self.run(monkeypatch, flipped).passed

    def test_products_that_start_too_early(self, monkeypatch):
        window = words.window_seconds
        compiled = verify_steps(nairobi("static-zz"), steps=8)
        assert compiled.passed

        def change(errors, step):
            # The window opens 20 ns before the neighbours are back in |0⟩.
            monkeypatch.setattr(
                "qnad_art.circuits.timed.window_seconds", lambda device: window(device) + 20e-9
            )
            return errors, step

        assert not self.run(monkeypatch, change, "static-zz").passed


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(InvalidInputError, match="steps is 0"):
        verify_steps(nairobi("echoed"), steps=0)


class TestCommand:
    def invoke(self, *arguments):
        return CliRunner().invoke(app, ["verify", *arguments])

    def test_says_how_far_off_and_passes(self):
        result = self.invoke("--steps", "3", "--device", "ibm_nairobi[crosstalk=echoed]")
        assert result.exit_code == 0, result.output
        assert len(re.findall("│ pass", result.output)) == 2
        assert "crosstalk echoed" in result.output

    def test_of_a_saved_classifier(self, tmp_path):
        from qnad_art.pretrained import load_pretrained

        load_pretrained("lenet5-mnist").hardened.save("saved", str(tmp_path))
        result = self.invoke("--steps", "4", "--folder", str(tmp_path / "saved"))
        assert result.exit_code == 0, result.output

    def test_a_folder_needs_steps(self, tmp_path):
        assert self.invoke("--folder", str(tmp_path)).exit_code != 0
