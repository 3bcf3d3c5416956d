"""Networks of one's own: what code may be, what is wrong with it, and that nothing else runs it."""

import sys

import pytest
import torch
from own_networks import write_networks

from qnad_art.errors import ArtifactError, InvalidInputError, UnknownNameError
from qnad_art.models import ModelEntry, build_model, find_model, load_model, save_weights
from qnad_art.models.architectures import Architecture, architecture_of
from qnad_art.models.code import TRAINING, code_address
from qnad_art.training.standard import TrainSettings

SIZES = {"num_classes": 10, "in_channels": 1, "image_size": 8}


@pytest.fixture
def nets(tmp_path):
    return write_networks(tmp_path)


class TestFinding:
    def test_a_registered_name_stays_a_name(self):
        assert find_model("lenet5") == "lenet5"
        with pytest.raises(UnknownNameError, match="Did you mean 'lenet5'"):
            find_model("lenet")

    @pytest.mark.parametrize("name", ["Net", "MADE", "FLAT"])
    def test_a_class_an_object_and_an_entry_are_built_for_the_data(self, nets, name):
        model = build_model(find_model(f"{nets}:{name}"), **SIZES)
        assert architecture_of(model) == Architecture(f"nets.py:{name}", 10, 1, 8)
        assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)

    def test_an_entry_says_its_usual_data_and_training(self, nets):
        entry = find_model(f"{nets}:FLAT")
        assert architecture_of(build_model(entry)).image_size == 12
        assert TrainSettings.for_model(entry, batch_size=7).learning_rate == 0.1
        assert TrainSettings.for_model(find_model(f"{nets}:Net")).epochs == TRAINING["epochs"]

    def test_code_in_an_importable_module(self, nets, monkeypatch):
        monkeypatch.syspath_prepend(nets.parent)
        entry = find_model("nets:FLAT")
        assert architecture_of(build_model(entry, **SIZES)).name == "nets:FLAT"
        assert code_address("nets:FLAT") == code_address(f"{nets}:FLAT")
        sys.modules.pop("nets")

    def test_an_entry_in_python_needs_no_name(self):
        entry = ModelEntry(Architecture("mine", 2, 1, 4), lambda a: torch.nn.Flatten(), {})
        with pytest.raises(InvalidInputError, match=r"output of shape \(1, 16\)"):
            build_model(entry)
        with pytest.raises(InvalidInputError, match=r"mine, training: .*epochs"):
            TrainSettings.for_model(entry)

    def test_weights_depend_on_the_seed_and_an_object_stays_as_it_is(self, nets):
        entry, made = find_model(f"{nets}:Net"), find_model(f"{nets}:MADE")
        first, again, other = (build_model(entry, **SIZES, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(first.output.weight, again.output.weight)
        assert not torch.equal(first.output.weight, other.output.weight)
        one, two = (build_model(made, **SIZES) for _ in range(2))
        with torch.no_grad():
            one.output.weight.zero_()
        assert two.output.weight.any()

    def test_changed_code_is_loaded_and_addressed_anew(self, nets):
        before = code_address(f"{nets}:Net")
        find_model(f"{nets}:Net")
        write_networks(nets.parent, "\n\nNet = fails\n")
        assert code_address(f"{nets}:Net") != before
        with pytest.raises(InvalidInputError, match="no such layer"):
            build_model(find_model(f"{nets}:Net"), **SIZES)

    def test_no_bytecode_is_left_beside_the_file(self, nets):
        find_model(f"{nets}:Net")
        assert [path.name for path in nets.parent.iterdir()] == ["nets.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{nets}:Nope", "defines no 'Nope'"),
        ("{nets}:NUMBER", "of type int"),
        ("{nets}:nothing", "made an object of type NoneType"),
        ("{nets}:fails", r"RuntimeError: no such layer \(.*nets.py, line 4\d\)"),
        ("{nets}:leaves", "nets.py:leaves failed: SystemExit"),
        ("{nets}:other_shape", r"shape \(1, 64\) from one image of 1×8×8, not \(1, 10\)"),
        ("{nets}x.py:Net", "does not exist"),
        ("{nets}:", "write FILE.py:NAME"),
        ("{nets}:Net()", "write FILE.py:NAME"),
        ("no_such_module_here:Net", "No module 'no_such_module_here' is installed"),
        ("no_such_package.here:Net", "ModuleNotFoundError"),
        ("pickle", "Unknown model 'pickle'"),
    ],
)
def test_what_is_wrong_is_said(text, message, nets):
    with pytest.raises((InvalidInputError, UnknownNameError), match=message):
        build_model(find_model(text.format(nets=nets)), **SIZES)


def test_images_that_the_network_cannot_take(nets):
    with pytest.raises(InvalidInputError, match=r"nets.py:Net cannot take images of 3×8×8"):
        build_model(find_model(f"{nets}:Net"), **{**SIZES, "in_channels": 3})
    with pytest.raises(InvalidInputError, match="does not state the shape of its images"):
        build_model(find_model(f"{nets}:Net"))


class TestWeights:
    @pytest.fixture
    def weights(self, nets, tmp_path):
        path = tmp_path / "w.safetensors"
        save_weights(build_model(find_model(f"{nets}:Net"), **SIZES, seed=3), path)
        return path

    def test_files_come_back_with_the_code(self, nets, weights):
        model = load_model(weights, find_model(f"{nets}:Net"))
        expected = build_model(find_model(f"{nets}:Net"), **SIZES, seed=3).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
        assert architecture_of(model).image_size == 8

    def test_a_file_has_no_code_run(self, nets, weights, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # where the file that it names lies
        touched = tmp_path / "touched"
        write_networks(tmp_path, f"\nimport pathlib\npathlib.Path({str(touched)!r}).touch()\n")
        with pytest.raises(ArtifactError, match=r"nets.py:Net, which is only run if you name it"):
            load_model(weights)
        assert not touched.exists()
        load_model(weights, find_model("nets.py:Net"))
        assert touched.exists()

    def test_other_code_does_not_fit(self, nets, weights):
        with pytest.raises(ArtifactError, match="does not fit Sequential"):
            load_model(weights, find_model(f"{nets}:FLAT"))

    def test_a_registered_network_is_not_code(self, nets, weights, tmp_path):
        path = tmp_path / "lenet5.safetensors"
        save_weights(build_model("lenet5"), path)
        with pytest.raises(ArtifactError, match=r"holds lenet5, not nets.py:Net"):
            load_model(path, find_model(f"{nets}:Net"))
        with pytest.raises(ArtifactError, match="only run if you name it"):
            load_model(weights, "lenet5")
