"""Saving hardened classifiers: what comes back is what went in, or an error that says why not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from art.defences.postprocessor import Rounded
from art.defences.preprocessor import FeatureSqueezing
from art_fixtures import hardened, images, network, plain, with_optimizer
from torch import nn

from qnad_art import QNAD, AveragedDraws, QuantumExecutedClassifier
from qnad_art.errors import ArtifactError, InvalidInputError
from qnad_art.models.architectures import build_model

Classifier = QuantumExecutedClassifier
FILES = ("manifest.json", "plan.safetensors", "weights.safetensors")


def logits(classifier: Classifier) -> np.ndarray:
    classifier.reseed(3)
    return classifier.predict(images().x[:6])


def qnad(**settings) -> Classifier:
    """Hardened by crosstalk, so that there is a plan to keep."""
    defence = QNAD(plain(**settings), shots=256, fraction=0.2, pairs=2, gain="raw", max_pairs=3)
    x, y = images("digits", "train").x[:64], images("digits", "train").y[:64]
    defence.fit(x, y)
    return defence(x, defence.get_classifier())


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """One save; tests copy it before they damage it."""
    directory = tmp_path_factory.mktemp("saved") / "net"
    qnad().save("net", str(directory.parent))
    return directory


@pytest.fixture
def damaged(saved, tmp_path) -> Path:
    directory = tmp_path / "net"
    directory.mkdir()
    for name in FILES:
        (directory / name).write_bytes((saved / name).read_bytes())
    return directory


def edit_manifest(directory: Path, change) -> None:
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


# Round trips

ARRAYS = (np.full((1, 1, 1), 0.1, np.float32), np.full((1, 1, 1), 0.9, np.float32))
VARIANTS = {
    "plain": {},
    "scalars": {"preprocessing": (0.25, 0.5)},
    "arrays": {"preprocessing": ARRAYS},
    "no preprocessing": {"preprocessing": None},
    "no clip values": {"clip_values": None},
    "clip arrays": {"clip_values": (np.zeros((1, 8, 8)), np.full((1, 8, 8), 2.0))},
    "channels last": {"channels_first": False},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_loaded_is_what_was_saved(variant, tmp_path):
    original = qnad(**VARIANTS[variant])
    original.save("net", str(tmp_path))
    assert sorted(p.name for p in (tmp_path / "net").iterdir()) == sorted(FILES)
    assert [p.name for p in tmp_path.iterdir()] == ["net"]
    loaded = Classifier.load(tmp_path / "net")
    assert type(loaded) is Classifier
    assert np.array_equal(logits(loaded), logits(original))
    assert np.array_equal(logits(Classifier.load(str(tmp_path / "net"))), logits(original))
    assert (loaded.shots, loaded.gain) == (256, "raw")
    for name in ("input_shape", "nb_classes", "channels_first"):
        assert getattr(loaded, name) == getattr(original, name)
    if original.clip_values is None:
        assert loaded.clip_values is None
    else:
        assert np.array_equal(loaded.clip_values, original.clip_values)
    assert loaded.all_framework_preprocessing
    assert loaded.plan.histogram() == original.plan.histogram()
    assert loaded.plan.settings == original.plan.settings
    assert loaded.plan.sites == original.plan.sites
    assert loaded.module.execution.table.max_pairs == 3
    for name, layer in original.plan.layers.items():
        assert torch.equal(loaded.plan.layers[name].site, layer.site)
        assert torch.equal(loaded.plan.layers[name].pairs, layer.pairs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_precision_come_back_so(dtype, tmp_path):
    original = hardened(plain(model=network().to(dtype)))
    original.save("net", str(tmp_path))
    loaded = Classifier.load(tmp_path / "net")
    assert {p.dtype for p in loaded.module.parameters()} == {dtype}
    assert np.array_equal(logits(loaded), logits(original))


@pytest.mark.parametrize("of", ["logits", "probabilities"])
def test_averaging_comes_back(of, tmp_path):
    original = hardened(shots=256).averaged(3, of=of)
    original.save("net", str(tmp_path))
    loaded = Classifier.load(tmp_path / "net")
    assert isinstance(loaded.model, AveragedDraws)
    assert (loaded.model.draws, loaded.model.of) == (3, of)
    assert np.array_equal(logits(loaded), logits(original))


def test_parts_that_stayed_classical_come_back_so(tmp_path):
    original = hardened(exclude=["features.*"])
    original.save("net", str(tmp_path))
    loaded = Classifier.load(tmp_path / "net")
    assert list(loaded.module.layers) == list(original.module.layers)
    assert np.array_equal(logits(loaded), logits(original))


def test_settings_at_loading_come_first(saved):
    loaded = Classifier.load(saved, shots=None, gain="calibrated", clip_values=(0.0, 3.0))
    assert (loaded.shots, loaded.gain) == (None, "calibrated")
    assert loaded.clip_values[1] == 3
    with_optimizer(loaded).fit(images().x[:8], images().y[:8], nb_epochs=1)


class Custom(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(64, width), nn.Linear(width, 10)
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.hidden(x.flatten(1)).relu())


def test_custom_networks_need_an_instance(tmp_path):
    original = hardened(plain(model=Custom()), shots=256)
    original.save("net", str(tmp_path))
    with pytest.raises(ArtifactError, match="model="):
        Classifier.load(tmp_path / "net")
    loaded = Classifier.load(tmp_path / "net", model=Custom())
    assert np.array_equal(logits(loaded), logits(original))


@pytest.mark.parametrize(
    "model",
    [lambda: Custom(15), lambda: build_model("lenet5"), lambda: nn.Linear(3, 3)],
    ids=["other width", "other network", "other class"],
)
def test_a_model_that_does_not_fit_is_refused(model, tmp_path):
    hardened(plain(model=Custom())).save("net", str(tmp_path))
    with pytest.raises(ArtifactError, match="do not fit"):
        Classifier.load(tmp_path / "net", model=model())


def test_a_refused_model_is_left_alone(tmp_path):
    hardened(plain(model=Custom())).save("net", str(tmp_path))
    model = Custom()
    model.out = nn.Linear(16, 9)
    before = model.hidden.weight.detach().clone()
    with pytest.raises(ArtifactError):
        Classifier.load(tmp_path / "net", model=model)
    assert torch.equal(model.hidden.weight, before)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.second(self.first(x.flatten(1)).relu()).relu())


def test_tied_weights_come_back(tmp_path):
    original = hardened(plain(model=Tied()))
    original.save("net", str(tmp_path))
    loaded = Classifier.load(tmp_path / "net", model=Tied())
    assert np.array_equal(logits(loaded), logits(original))


def test_a_mapping_comes_back_and_the_default_is_not_written(tmp_path):
    """Folders of earlier versions name no mapping."""
    for name in ("linear", "arcsine"):
        original = hardened(shots=256, mapping=name)
        original.save(name, str(tmp_path))
        loaded = Classifier.load(tmp_path / name)
        assert loaded.module.settings.mapping == name
        assert np.array_equal(logits(loaded), logits(original))
        written = json.loads((tmp_path / name / "manifest.json").read_text())["execution"]
        assert written.get("mapping") == (None if name == "arcsine" else name)


# Where to save


def test_saving_again_replaces_the_earlier_save(tmp_path):
    first, second = hardened(), hardened(device="ideal")
    first.save("net", str(tmp_path))
    second.save("net", str(tmp_path))
    assert np.array_equal(logits(Classifier.load(tmp_path / "net")), logits(second))
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_folders_on_the_way_are_made_and_the_default_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hardened().save("net", "some/where")
    hardened().save("here")
    assert {p.name for p in tmp_path.iterdir()} == {"some", "here"}
    Classifier.load("some/where/net")
    Classifier.load("here")


def foreign_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("years")


def foreign_manifest(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("years")
    (path / "manifest.json").write_text('{"name": "a web application"}')


@pytest.mark.parametrize(
    "make",
    [
        foreign_folder,
        foreign_manifest,
        lambda path: path.write_text("years"),
    ],
    ids=["folder", "folder with a manifest.json", "file"],
)
def test_foreign_things_are_not_overwritten(make, tmp_path):
    make(tmp_path / "net")
    with pytest.raises(InvalidInputError, match="net"):
        hardened().save("net", str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["net"]
    kept = tmp_path / "net" if (tmp_path / "net").is_file() else tmp_path / "net" / "thesis.tex"
    assert kept.read_text() == "years"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"preprocessing_defences": FeatureSqueezing((0, 1))}, "defences"),
        ({"postprocessing_defences": Rounded(2)}, "defences"),
        ({"preprocessing": FeatureSqueezing((0, 1))}, "FeatureSqueezing"),
    ],
)
def test_what_data_cannot_describe_is_not_saved(settings, says, tmp_path):
    made = hardened()
    classifier = Classifier(made.model, made.loss, (1, 8, 8), 10, **settings)
    with pytest.raises(InvalidInputError, match=says):
        classifier.save("net", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "loss",
    [
        nn.MultiMarginLoss(),
        pytest.param(nn.CrossEntropyLoss(label_smoothing=0.1)),
        pytest.param(nn.CrossEntropyLoss(weight=torch.ones(10) / 3)),
    ],
    ids=["margin", "smoothing", "weights"],
)
def test_losses_that_would_be_lost_are_not_saved(loss, tmp_path):
    classifier = Classifier(hardened().model, loss, (1, 8, 8), 10)
    with pytest.raises(InvalidInputError, match="CrossEntropyLoss"):
        classifier.save("net", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


# Interruptions


@contextmanager
def breaking(attribute: str, at: int, error: BaseException) -> Iterator[None]:
    """Within the context the ``at``-th call of ``os.<attribute>`` raises."""
    real, calls = getattr(os, attribute), []

    def broken(*arguments, **settings):
        calls.append(arguments)
        if len(calls) == at:
            raise error
        return real(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, attribute, broken)
        if attribute == "replace":  # before Python 3.11 Path.replace does not look in os
            patch.setattr(Path, "replace", broken)
        yield


@pytest.mark.parametrize("earlier", [False, True], ids=["first save", "overwriting"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("attribute", ["fsync", "replace"])
def test_interrupted_saves_leave_the_earlier_one_and_no_debris(attribute, error, earlier, tmp_path):
    first, second = hardened(), hardened(device="ideal")
    if earlier:
        first.save("net", str(tmp_path))
    for at in count(1):
        try:
            with breaking(attribute, at, error("stop")):
                second.save("net", str(tmp_path))
        except error:
            assert [p.name for p in tmp_path.iterdir()] == ["net"] * earlier, at
            if earlier:
                found = logits(Classifier.load(tmp_path / "net"))
                assert np.array_equal(found, logits(first)), at
        else:
            break  # there were fewer calls than that: nothing was interrupted
    assert at > 2
    assert np.array_equal(logits(Classifier.load(tmp_path / "net")), logits(second))


# Damage


def flip(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(path.read_bytes()[:-2]),
        lambda path: path.write_bytes(os.urandom(200)),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["missing", "empty", "half", "end cut", "noise", "folder"],
)
def test_damaged_files_are_refused_by_name(name, damage, damaged):
    damage(damaged / name)
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        Classifier.load(damaged)
    assert {p.name for p in damaged.parent.iterdir()} == {"net"}
    assert {p.name for p in damaged.iterdir()} <= set(FILES)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("name", FILES[1:])
def test_one_flipped_bit_is_noticed(name, position, damaged):
    flip(damaged / name, position)
    with pytest.raises(ArtifactError, match=f"{name}.*(checksum|safetensors)"):
        Classifier.load(damaged)


MANIFEST_DAMAGE = {
    "version": lambda m: m.update(format_version=2),
    "kind": lambda m: m.update(kind="training-checkpoint"),
    "no checksums": lambda m: m.pop("sha256"),
    "no layers": lambda m: m.pop("layers"),
    "no device": lambda m: m.pop("device"),
    "no execution": lambda m: m.pop("execution"),
    "checksums of another type": lambda m: m.update(sha256=[]),
    "another device": lambda m: m.update(device={"name": "x"}),
    "another network": lambda m: m["architecture"].update(name="x"),
    "shots": lambda m: m["execution"].update(shots=-3),
    "gain": lambda m: m["execution"].update(gain="x"),
    "one number for two": lambda m: m.update(preprocessing=[0.5]),
    "layers renamed": lambda m: m.update(layers={"x": {}}),
    "fewer layers": lambda m: m["layers"].pop("features.0"),
}
UNNOTICEABLE = {  # but for the checksum
    "a digit of a scale": lambda m: m["layers"]["features.3"].update(input_scale=9.5),
    "a digit of the shots": lambda m: m["execution"].update(shots=257),
}


@pytest.mark.parametrize("change", [*MANIFEST_DAMAGE.values(), *UNNOTICEABLE.values()])
def test_a_damaged_manifest_is_refused(change, damaged):
    edit_manifest(damaged, change)
    with pytest.raises(ArtifactError, match="net"):
        Classifier.load(damaged)


@pytest.mark.parametrize("damage", MANIFEST_DAMAGE)
def test_a_manifest_that_makes_no_sense_is_refused_though_its_checksum_fits(damage, damaged):
    def change(manifest):
        MANIFEST_DAMAGE[damage](manifest)
        del manifest["checksum"]
        text = json.dumps(manifest, sort_keys=True)
        manifest["checksum"] = hashlib.sha256(text.encode()).hexdigest()

    edit_manifest(damaged, change)
    with pytest.raises(ArtifactError, match="net"):
        Classifier.load(damaged)


def test_files_of_another_save_are_refused(damaged, tmp_path):
    other = hardened()
    with torch.no_grad():
        other.module.layers["features.0"].weight.mul_(2)
    other.save("other", str(tmp_path))
    for name in FILES[1:]:
        kept = (damaged / name).read_bytes()
        (damaged / name).write_bytes((tmp_path / "other" / name).read_bytes())
        with pytest.raises(ArtifactError, match="checksum"):
            Classifier.load(damaged)
        (damaged / name).write_bytes(kept)
    Classifier.load(damaged)


def test_nothing_in_a_save_is_pickled(saved):
    for name in FILES:
        content = (saved / name).read_bytes()
        assert not content.startswith((b"\x80", b"PK"))
    assert network().state_dict().keys() == _stored(saved)


def _stored(directory: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(directory / FILES[2], framework="pt") as file:
        return set(file.keys())


def test_a_folder_says_its_execution_as_earlier_versions_read_it(tmp_path):
    execution = {"gain": "raw", "headroom": 1.25, "bias": "quantum", "compute": [0, 2]}
    saved = hardened(device="ibm_nairobi[crosstalk=paper]", shots=64, **execution)
    saved.save("net", str(tmp_path))
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert manifest["execution"] == {
        **{"readout": "twirled", "shots": 64, "gain": "raw", "headroom": 1.25, "bias": "quantum"},
        **{"max_pairs": 8, "order": "stretched", "compute": [0, 2]},
    }
    loaded = Classifier.load(tmp_path / "net")
    assert loaded.module.settings == saved.module.settings


def test_an_echo_comes_back_and_is_named_only_then(tmp_path):
    saved = hardened(echo=True, max_pairs=1, compute=[0, 2])
    saved.save("net", str(tmp_path))
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    assert manifest["execution"]["echo"] is True
    loaded = Classifier.load(tmp_path / "net").module
    assert loaded.settings == saved.module.settings
    assert loaded.placement == saved.module.placement
