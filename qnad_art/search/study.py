"""The search for settings of tuned crosstalk that balance clean and robust accuracy, with Optuna.

A trial tunes the crosstalk on one part of the training data. Validation measures its accuracy on
another part, which tuning never sees, on clean images and under PGD at the requested budget. Test
data are not used.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import optuna

from qnad_art.accuracy import Images, Labels, Proportion, count_correct, count_robust
from qnad_art.crosstalk import build_strategy
from qnad_art.defence import QNAD
from qnad_art.device.catalogue import load_device
from qnad_art.errors import ArtifactError, InvalidInputError, QnadError, differences
from qnad_art.network.settings import ExecutionSettings
from qnad_art.search.pareto import SearchResult, Trial
from qnad_art.search.settings import EXECUTION, SEARCHED, VALIDATION_IMAGES, SearchSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from art.estimators.classification import PyTorchClassifier


def search(
    classifier: PyTorchClassifier,
    x: Images,
    y: Labels,
    settings: SearchSettings,
    *,
    on_trial: Callable[[Trial], object] | None = None,
) -> SearchResult:
    """Search for settings with high clean and high robust accuracy.

    A stopped search continues from its storage; its result equals that of an uninterrupted search.

    Args:
        classifier: the trained network.
        x, y: training images (N, *input_shape) and class indices (N,).
        settings: settings of the search.
        on_trial: called after every trial.

    Raises:
        UnknownNameError: the device, or a setting of ``Tuned``, does not exist.
        ArtifactError: the storage is not an SQLite file of Optuna, or it holds another search.
    """
    # Checked first, so that wrong names do not leave a storage behind.
    load_device(settings.device)
    build_strategy("tuned", **settings.tuning)
    tuning, judging = _divide(x, y, settings)
    with _storage(settings):
        study = _open(settings, _digest(classifier, x, y))
        trials = _finished(study)
    while len(trials) < settings.trials:
        # Every trial has its own sampler, so that a resumed search makes the same choices.
        seed = np.random.SeedSequence([settings.seed, len(trials)]).generate_state(1)
        study.sampler = optuna.samplers.TPESampler(
            seed=int(seed[0]), multivariate=False, constant_liar=False
        )
        with _storage(settings):
            asked = study.ask()
            chosen = _suggest(asked, settings)
        try:
            start = time.perf_counter()
            clean, robust, achieved = _judge(classifier, tuning, judging, chosen, settings)
            facts = {"settings": chosen, "images": clean.images, "achieved": achieved}
            with _storage(settings):
                for name, value in {**facts, "seconds": time.perf_counter() - start}.items():
                    asked.set_user_attr(name, value)
                study.tell(asked, [clean.accuracy, robust.accuracy])
                trials = _finished(study)
        except BaseException:
            with quiet_optuna(), suppress(Exception):  # the storage itself may fail
                study.tell(asked, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            raise
        if on_trial is not None:
            on_trial(trials[-1])
    return SearchResult(settings, trials)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Context in which Optuna logs only errors."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def _storage(settings: SearchSettings) -> Iterator[None]:
    """Context that turns errors of a damaged or full storage into ArtifactErrors."""
    try:
        yield
    except QnadError:
        raise
    # On a damaged file, Optuna and SQLAlchemy raise all kinds of errors: assertions, key errors, …
    except Exception as error:
        if settings.storage is None:
            raise
        raise ArtifactError(
            f"{settings.storage} cannot be used as the storage of a search: {error}. Give a new "
            "file or one that a search has written, and check that its disk has space."
        ) from error


def _divide(
    x: Images, y: Labels, settings: SearchSettings
) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """Divide images and labels at random, by the seed, into (tuning, validation)."""
    if len(x) != len(y):
        raise InvalidInputError(f"{len(x)} images for {len(y)} labels; give one label per image.")
    held = min(max(1, round(settings.validation_fraction * len(x))), VALIDATION_IMAGES)
    if len(x) - held < 2:
        raise InvalidInputError(f"{len(x)} images are too few for tuning and validation.")
    order: npt.NDArray[np.int64] = np.random.default_rng(settings.seed).permutation(len(x))
    return (x[order[held:]], y[order[held:]]), (x[order[:held]], y[order[:held]])


def _suggest(trial: optuna.Trial, settings: SearchSettings) -> dict[str, Any]:
    """Suggest settings, rounded to four digits so that they fit on a command line."""
    chosen: dict[str, Any] = {}
    for name in SEARCHED:
        low, high = getattr(settings, name)
        if name == "max_pairs":
            chosen[name] = trial.suggest_int(name, low, high)
            continue
        value = trial.suggest_float(name, low, high, log=name == "learning_rate")
        chosen[name] = float(f"{value:.4g}")
    chosen["epsilon"] = float(f"{settings.epsilon * chosen.pop('relative_epsilon'):.4g}")
    if settings.shots:
        chosen["shots"] = trial.suggest_categorical("shots", settings.shots)
    return chosen


def _judge(
    classifier: PyTorchClassifier,
    tuning: tuple[Images, Labels],
    judging: tuple[Images, Labels],
    chosen: Mapping[str, Any],
    settings: SearchSettings,
) -> tuple[Proportion, Proportion, float]:
    """Run one trial; return (clean, robust, fraction of the weights under crosstalk)."""
    tuned = {name: value for name, value in chosen.items() if name not in EXECUTION}
    schedule = {"epochs": settings.epochs, "seed": settings.seed}
    execution = ExecutionSettings(
        device=settings.device,
        bias=settings.bias,
        mapping=settings.mapping,
        max_pairs=settings.max_pairs[1],  # one table of responses for all trials
        seed=settings.seed,
        **{name: value for name, value in chosen.items() if name in EXECUTION},
    )
    strategy = build_strategy("tuned", **tuned, **settings.tuning, **schedule)
    defence = QNAD(classifier, settings=execution, strategy=strategy)
    defence.fit(*tuning)
    hardened = defence(tuning[0], classifier)
    clean = count_correct(hardened, *judging)
    robust = count_robust(hardened, *judging, epsilon=settings.epsilon, steps=settings.attack_steps)
    return clean, robust, hardened.plan.achieved


def _open(settings: SearchSettings, digest: str) -> optuna.Study:
    """Open the study in the storage, or create it."""
    from sqlalchemy import URL

    identity = {**settings.recorded(), "data and network": digest}
    with quiet_optuna():
        storage = None
        if settings.storage is not None:
            Path(settings.storage).resolve().parent.mkdir(parents=True, exist_ok=True)
            storage = str(URL.create("sqlite", database=str(settings.storage)))
        study = optuna.create_study(
            storage=storage,
            study_name=settings.study,
            directions=["maximize", "maximize"],
            load_if_exists=True,
        )
    known = study.user_attrs.get("identity")
    if known is None and not study.trials:
        study.set_user_attr("identity", identity)
    elif known != identity:
        raise ArtifactError(
            f"Study {settings.study!r} in {settings.storage} is another search: "
            f"{differences(known or {}, identity)}. Use its settings, or another study name."
        )
    return study


def _finished(study: optuna.Study) -> tuple[Trial, ...]:
    """The finished trials, without those that were interrupted."""
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    trials = []
    for number, found in enumerate(complete, 1):
        facts = dict(found.user_attrs)
        images = facts.pop("images")
        clean, robust = (Proportion(round(value * images), images) for value in found.values)
        trials.append(Trial(number, clean=clean, robust=robust, **facts))
    return tuple(trials)


def _digest(classifier: PyTorchClassifier, x: Images, y: Labels) -> str:
    digest = hashlib.sha256()
    for tensor in classifier.model.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for array in (x, y):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
