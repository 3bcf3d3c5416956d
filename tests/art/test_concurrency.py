"""Threads on one classifier, processes on one cache, forked and spawned workers."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from torch import nn

from qnad_art.errors import QnadWarning
from qnad_art.estimator import QuantumExecutedClassifier
from qnad_art.files.atomic import write_bytes
from qnad_art.layers.noise_source import NoiseSource

THREADS, ROUNDS, PROCESSES, LIMIT = 4, 25, 2, 250
SHAPE = (1, 4, 4)
# A spawned process imports torch, ART and Qiskit first.
METHODS = [
    method if method == "fork" else pytest.param(method, marks=pytest.mark.slow)
    for method in ("fork", "spawn")
    if method in multiprocessing.get_all_start_methods()
]


def images(count: int = 8) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.random((count, *SHAPE), dtype=np.float32)


def noisy(shots: int | None = 64, seed: int | None = 0) -> QuantumExecutedClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
        )
    plain = PyTorchClassifier(network, nn.CrossEntropyLoss(), SHAPE, 3, device_type="cpu")
    return QuantumExecutedClassifier.from_art(plain, images(32), shots=shots, seed=seed)


@contextmanager
def eager_switching() -> Iterator[None]:
    """Threads change places all the time, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(action: Callable[[int], Any]) -> list[Any]:
    """``action(thread number)`` of several threads that start at once."""
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> Any:
        barrier.wait(LIMIT)
        return action(number)

    with eager_switching(), ThreadPoolExecutor(THREADS) as pool:
        return [job.result(LIMIT) for job in [pool.submit(run, n) for n in range(THREADS)]]


# Threads


def test_threads_predict_what_one_thread_predicts():
    x, y = images(), np.arange(8) % 3
    expected = noisy(None).predict(x), noisy(None).loss_gradient(x, y)
    for _ in range(ROUNDS):
        classifier = noisy(None)  # its kernels are compiled by whichever thread comes first
        for found in in_threads(lambda n, c=classifier: (c.predict(x), c.loss_gradient(x, y))):
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-7)
        assert all(p.requires_grad for p in classifier.model.parameters())


def test_threads_share_the_draws_of_one_sequence():
    """Together they draw just what one thread would have drawn: nothing twice, nothing lost."""
    reference = torch.zeros(32)
    expected = NoiseSource(7)
    for _ in range(ROUNDS):
        source = NoiseSource(7)
        drawn = in_threads(lambda n, s=source: [s.normal_like(reference) for _ in range(5)])
        found = {tuple(draw.tolist()) for draws in drawn for draw in draws}
        expected.reseed(7)
        alone = {tuple(expected.normal_like(reference).tolist()) for _ in range(5 * THREADS)}
        assert found == alone


def test_draws_of_threads_are_independent():
    classifier = noisy()
    x = images(1).repeat(500, axis=0)
    drawn = [logits[:, 0] for logits in in_threads(lambda n: classifier.predict(x, 500))]
    correlation = np.corrcoef(drawn) - np.eye(THREADS)
    assert np.abs(correlation).max() < 5 / np.sqrt(500)


def test_a_frozen_draw_is_one_for_all_threads():
    classifier, x = noisy(), images()
    with classifier.frozen_draw():
        expected = classifier.predict(x)
        averaged = classifier.averaged(3)
        mean = averaged.predict(x)
        for found in in_threads(
            lambda n: [classifier.predict(x) for _ in range(ROUNDS)] + [averaged.predict(x)]
        ):
            assert all(np.array_equal(logits, expected) for logits in found[:-1])
            assert np.array_equal(found[-1], mean)
    assert not np.array_equal(classifier.predict(x), expected)


def test_a_copy_for_each_thread_reproduces_thread_by_thread():
    import copy

    original, x = noisy(), images()

    def run(number: int) -> list[np.ndarray]:
        own = copies[number]
        own.reseed(number)
        return [own.predict(x) for _ in range(5)]

    copies = [copy.deepcopy(original) for _ in range(THREADS)]
    together = in_threads(run)
    alone = [run(number) for number in range(THREADS)]
    np.testing.assert_array_equal(together, alone)
    assert not np.array_equal(together[0], together[1])


def test_writing_files_leaves_the_umask_alone(tmp_path, monkeypatch):
    """It is one for the whole process: a thread that turns it back may turn another's."""
    mask = os.umask(0o022)
    os.umask(mask)
    with monkeypatch.context() as patch:
        patch.setattr(os, "umask", lambda mask: pytest.fail("the umask was touched"))
        in_threads(lambda n: [write_bytes(tmp_path / f"{n}-{i}", b"x") for i in range(20)])
    files = list(tmp_path.iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}
    assert len(files) == 20 * THREADS


# Processes


def converted(directory: str, barrier: Any, results: Any, number: int) -> None:
    """A process with an empty cache before it, as several start at once."""
    os.environ["QNAD_CACHE_DIR"] = directory
    torch.set_num_threads(1)
    barrier.wait(LIMIT)
    with warnings.catch_warnings():
        warnings.simplefilter("error", QnadWarning)
        results.put((number, noisy(None).predict(images())))


def predicted(
    classifiers: list[QuantumExecutedClassifier] | bytes, barrier: Any, results: Any, number: int
) -> None:
    torch.set_num_threads(1)
    if isinstance(classifiers, bytes):
        classifiers = pickle.loads(classifiers)
    results.put((number, [classifier.predict(images()) for classifier in classifiers]))


def in_processes(method: str, target: Callable[..., None], given: Any) -> list[Any]:
    """What ``target(given, barrier, queue, number)`` puts into the queue in each process."""
    context = multiprocessing.get_context(method)
    shared = context.Barrier(PROCESSES), context.Queue()
    numbers = range(PROCESSES)
    processes = [context.Process(target=target, args=(given, *shared, n)) for n in numbers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks with threads
        for process in processes:
            process.start()
    try:
        found = dict(shared[1].get(timeout=LIMIT) for _ in processes)
        for process in processes:
            process.join(LIMIT)
    finally:
        for process in processes:
            process.kill()
    assert [process.exitcode for process in processes] == PROCESSES * [0]
    return [found[number] for number in numbers]


@pytest.mark.parametrize("method", METHODS)
def test_processes_started_at_once_fill_an_empty_cache_with_valid_entries(method, tmp_path):
    expected = noisy(None).predict(images())
    for found in in_processes(method, converted, str(tmp_path)):
        np.testing.assert_array_equal(found, expected)
    entries = [path for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert sorted(path.parent.name for path in entries) == ["device", "response"]


@pytest.mark.parametrize("method", METHODS)
def test_workers_repeat_the_draws_of_a_seed_and_never_those_without(method):
    seeded, unseeded, frozen = classifiers = [noisy(seed=5), noisy(seed=None), noisy(seed=None)]
    for classifier in classifiers:
        classifier.predict(images())  # in the middle of its sequence, its threads started
    with frozen.frozen_draw():
        kept = frozen.predict(images())
        given = classifiers if method == "fork" else pickle.dumps(classifiers)
        found = in_processes(method, predicted, given)
    expected = seeded.predict(images())
    for repeated, _, _ in found:
        np.testing.assert_array_equal(repeated, expected)
    drawn = {own.tobytes() for _, own, _ in found} | {unseeded.predict(images()).tobytes()}
    assert len(drawn) == PROCESSES + 1
    # A fork is in the context that it was made in; a pickle holds none.
    same = [np.array_equal(logits, kept) for _, _, logits in found]
    assert same == PROCESSES * [method == "fork"]
