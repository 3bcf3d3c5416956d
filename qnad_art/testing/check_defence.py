"""Conformance suite for the benchmark's defences, run on digits and a small network."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from art.estimators.classification import PyTorchClassifier
from pydantic import ValidationError

from qnad_art.benchmark.defences import build_steps, defence_names, steps_content
from qnad_art.benchmark.defences.base import Defence, Work
from qnad_art.benchmark.threats.victim import Images, noise_sources, reseed, seeded
from qnad_art.datasets.dataset import Dataset
from qnad_art.device.catalogue import DeviceLike, load_device
from qnad_art.device.profile import DEFAULT_DEVICE, DeviceProfile
from qnad_art.testing.checks import Suite, expect, expect_numbers, expect_type, expect_unchanged
from qnad_art.testing.specimens import digits, digits_classifier, global_randomness

TRAINING_IMAGES = 128
TRIED = 16
UNSAFE = (".pkl", ".pickle", ".pt", ".pth", ".npy")
"""Suffixes of files that may be unpickled when they are read."""


class _NoDevice:
    """Replaces the device of a step that claims not to use one."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(
            f"found that it uses work.device (its {name}); expected quantum = True in the class"
        )


@dataclass(frozen=True)
class Fitted:
    """The results of fitting a defence."""

    given: PyTorchClassifier
    work: Work
    first: PyTorchClassifier
    second: PyTorchClassifier
    suffixes: frozenset[str]


@dataclass(frozen=True)
class _Case:
    """A defence's class, its settings, the device, and its fits by seed."""

    make: Callable[..., Defence]
    settings: Mapping[str, Any]
    device: DeviceProfile
    known_as: str | None
    _fitted: dict[tuple[int, int], Fitted] = field(default_factory=dict)

    @cached_property
    def step(self) -> Defence:
        return self.make(**self.settings)

    def work(self, seed: int) -> Work:
        device: Any = self.device if self.step.quantum else _NoDevice()
        return Work(digits("train").subset(range(TRAINING_IMAGES)), device, seed)

    def fitted(self, seed: int = 0, *, time: int = 0) -> Fitted:
        """Fit once and apply twice with the seed's work; cached, as fitting may be expensive."""
        if (seed, time) not in self._fitted:
            given, work = digits_classifier(), self.work(seed)
            with tempfile.TemporaryDirectory() as folder:
                self.step.fit(given, work, Path(folder))
                first = self.step.apply(given, work, Path(folder))
                second = self.step.apply(given, work, Path(folder))
                files = [path for path in Path(folder).rglob("*") if path.is_file()]
            suffixes = frozenset(path.suffix for path in files)
            self._fitted[seed, time] = Fitted(given, work, first, second, suffixes)
        return self._fitted[seed, time]


def logits(classifier: PyTorchClassifier, seed: int = 0) -> Images:
    """Outputs for a few test images, with noise restarted from ``seed`` as the benchmark does it.

    The global generators are not restarted, because noise must not come from them.
    """
    reseed(classifier, seed)
    outputs: Images = classifier.predict(digits().x[:TRIED])
    return outputs


def is_a_defence_with_a_name(case: _Case) -> None:
    """The defence is a subclass of Defence with its registered name."""
    expect_type(case.step, Defence)
    name = getattr(case.step, "name", None)
    expect(isinstance(name, str) and name, found=f"name {name!r}", expected="a name (str)")
    (content,) = steps_content([case.step])
    expect(
        case.known_as in (None, name, content["name"]),
        found=f"name {name!r}",
        expected=f"{case.known_as!r}, under which it is registered",
    )


def settings_go_through_json(case: _Case) -> None:
    """``steps_content`` through JSON and ``build_steps`` gives an equal step."""
    content = json.loads(json.dumps(steps_content([case.step])))
    if case.step.name in defence_names():
        (found,) = build_steps(content)
    else:
        found = type(case.step)(**{k: v for k, v in content[0].items() if k != "name"})
    expect(
        found == case.step and type(found) is type(case.step),
        found=f"{found!r} after conversion through {content}",
        expected=f"{case.step!r}",
    )


def refuses_unknown_settings(case: _Case) -> None:
    """Unknown settings are refused, and steps are frozen, because settings identify results."""
    settings = case.step.model_dump()
    try:
        type(case.step)(**{**settings, "no_such_setting": 1})
    except ValidationError:
        pass
    else:
        raise AssertionError(
            "found that the setting 'no_such_setting' is accepted; expected a ValidationError "
            "(keep Defence's model_config with extra='forbid')"
        )
    frozen = bool(type(case.step).model_config.get("frozen"))
    expect(frozen, found="a step that can be changed", expected="Defence's frozen=True")


def gives_a_classifier_that_predicts(case: _Case) -> None:
    """``fit``, then ``apply`` gives a PyTorchClassifier with a row of finite logits per image."""
    made = case.fitted().first
    expect_type(made, PyTorchClassifier)
    expect_numbers(logits(made), (TRIED, 10))


def leaves_the_given_classifier_alone(case: _Case) -> None:
    """The given classifier (weights, mode, predictions) and the training data are unchanged."""
    fitted, fresh = case.fitted(), digits_classifier()
    expect(
        fitted.first.model is not fitted.given.model,
        found="a classifier around the module that was given",
        expected="a copy, because the undefended network is measured as well",
    )

    def state(classifier: PyTorchClassifier, data: Dataset) -> dict[str, object]:
        arrays = {"its mode": classifier.model.training, "its predictions": logits(classifier)}
        training = {"the training images": data.x, "the training labels": data.y}
        return {**classifier.model.state_dict(), **arrays, **training}

    expect_unchanged(
        state(fresh, case.work(0).training),
        state(fitted.given, fitted.work.training),
        by="the defence",
        expected="the given classifier and the training data as before",
    )


def apply_gives_the_same_at_every_call(case: _Case) -> None:
    """Every ``apply`` gives the same classifier, because workers apply it again for every cell."""
    fitted = case.fitted()
    _expect_same(fitted.first, fitted.second, "a second apply from the same folder")


def same_seed_same_defence(case: _Case) -> None:
    """Fits with the same ``work.seed`` agree for any state of the global generators."""
    with global_randomness(5):
        again = case.fitted(time=1)
    _expect_same(case.fitted().first, again.first, "a second fit with the same work.seed")


def _expect_same(one: PyTorchClassifier, other: PyTorchClassifier, what: str) -> None:
    difference = float(np.abs(logits(one) - logits(other)).max())
    expect(
        difference <= 1e-6 * float(np.abs(logits(one)).max()),
        found=f"logits that differ by up to {difference:.3g} after {what}",
        expected="the same classifier",
    )


def noise_keeps_the_convention(case: _Case) -> None:
    """Noise comes from a NoiseSource in the module, so that draws can be repeated or frozen."""
    made = case.fitted().first
    repeated = np.array_equal(logits(made, seed=3), logits(made, seed=3))
    with seeded(1):
        one = logits(made, seed=3)
    with seeded(2):
        other = logits(made, seed=3)
    expect(
        repeated and np.array_equal(one, other),
        found="predictions that differ although the module's noise was restarted from one seed, "
        f"with {len(noise_sources(made))} noise sources",
        expected="all noise from a qnad_art.layers.noise_source.NoiseSource in the attribute "
        "`noise` of a module",
    )


def keeps_no_pickles(case: _Case) -> None:
    """No pickles are written: people share run folders, and reading one must not run code."""
    unsafe = sorted(case.fitted().suffixes & set(UNSAFE))
    expect(
        not unsafe,
        found=f"files that end in {', '.join(unsafe)}",
        expected="safetensors (qnad_art.files.artifacts.save_tensors) and JSON",
    )


SUITE: Suite[_Case] = Suite("defence")


@SUITE.run_on
def check_defence(
    defence: str | Callable[..., Defence],
    *,
    device: DeviceLike = DEFAULT_DEVICE,
    **settings: Any,
) -> _Case:
    """Check a defence of the benchmark on 8×8 digits and a small network.

    A single call fits the defence twice. Checks that run one by one each fit it again.

    Args:
        defence: registered name or class.
        device: device for defences with ``quantum = True``.
        **settings: settings of the defence, for example ``epochs=1`` to make it fast.

    Raises AssertionError at the first check that fails; see :mod:`qnad_art.testing`.
    """
    if not isinstance(defence, str):
        return _Case(defence, settings, load_device(device), None)

    def make(**settings: Any) -> Defence:
        (step,) = build_steps({"name": defence, **settings})
        return step

    return _Case(make, settings, load_device(device), defence)
