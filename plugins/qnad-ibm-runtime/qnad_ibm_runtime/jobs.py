"""Jobs from work to counts: sent once, fetched by id, sent again where they failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qnad_art.device.profile import DeviceProfile
from qnad_art.engines.circuit import Array, Integers
from qnad_ibm_runtime.circuits import REGISTER, duration, joint_circuit
from qnad_ibm_runtime.connection import Connection, log
from qnad_ibm_runtime.errors import CostError, JobError
from qnad_ibm_runtime.ledger import Ledger
from qnad_ibm_runtime.packing import JointCircuit


@dataclass(frozen=True)
class Work:
    """Joint circuits that go into one job.

    Args:
        key: names device, circuits, angles, shots and seed: equal work has the same.
        circuits: with the products of their rows.
        flip: X before the measurement.
        shots: of each row.
    """

    key: str
    circuits: tuple[JointCircuit, ...]
    flip: bool
    shots: int

    @property
    def rows(self) -> int:
        """Executions."""
        return sum(len(circuit.products) for circuit in self.circuits)

    @property
    def total_shots(self) -> int:
        """Of all executions."""
        return self.rows * self.shots

    def seconds(self, device: DeviceProfile, target: Any, rep_delay: float) -> float:
        """Estimated time of the device."""
        return self.shots * sum(
            len(circuit.products)
            * (duration(device, target, circuit.slots, flip=self.flip) + rep_delay)
            for circuit in self.circuits
        )


class Jobs:
    """Runs work on a connection.

    Args:
        device: whose circuits they are.
        connection: sends and finds.
        ledger: ids of what was sent before.
    """

    def __init__(self, device: DeviceProfile, connection: Connection, ledger: Ledger) -> None:
        self.device = device
        self.connection = connection
        self.ledger = ledger
        self.sent_shots = 0
        self._failed: set[str] = set()

    def run(self, works: Sequence[Work], theta: Array, phi: Array) -> list[Integers]:
        """Number of ones of every product, per work an array like all its products in a row.

        Raises:
            CostError: what is not yet sent needs more shots than are left; nothing was sent.
            JobError: the connection or a job failed for good. What was sent is kept for next time.
        """
        unsent = [work for work in works if work.key not in self.ledger]
        self._reserve(sum(work.total_shots for work in unsent), count=False)
        if len(unsent) < len(works):
            log.info("%d of %d jobs were sent before", len(works) - len(unsent), len(works))
        if not unsent:
            return self._run(self.connection.backend, works, theta, phi)
        with self.connection.opened() as mode:
            return self._run(mode, works, theta, phi)

    def _run(self, mode: Any, works: Sequence[Work], theta: Array, phi: Array) -> list[Integers]:
        """All jobs are sent before the first is waited for."""
        jobs = [self._start(mode, work, theta, phi) for work in works]
        return [
            self._finish(mode, work, job, theta, phi) for work, job in zip(works, jobs, strict=True)
        ]

    def _start(self, mode: Any, work: Work, theta: Array, phi: Array) -> Any:
        """The job of some work, sent before or now."""
        if work.key in self.ledger:
            job = self._sent_before(work)
            if job is not None:
                return job
        return self._send(mode, work, theta, phi)

    def _sent_before(self, work: Work) -> Any | None:
        from qiskit_ibm_runtime.exceptions import RuntimeJobNotFound

        job_id, what = self.ledger[work.key], "fetching a job"
        if job_id is None:
            return self.connection.persist(
                lambda: self.connection.find(work.key, self._failed), what
            )
        try:
            return self.connection.persist(lambda: self.connection.job(job_id), what)
        except RuntimeJobNotFound:
            log.warning("job %s is gone from the service; its work is sent again", job_id)
            return None

    def _send(self, mode: Any, work: Work, theta: Array, phi: Array) -> Any:
        """Send a job once: if the answer was lost, look whether it arrived before trying again."""
        self._reserve(work.total_shots, count=True)
        pubs = [self._pub(circuit, work.flip, theta, phi) for circuit in work.circuits]
        seed = int(work.key[:7], 16)
        lost = False
        self.ledger.note(work.key, None)

        def send() -> Any:
            nonlocal lost
            found = self.connection.find(work.key, self._failed) if lost else None
            lost = True
            return found or self.connection.send(
                mode, pubs, shots=work.shots, tag=work.key, seed=seed
            )

        job = self.connection.persist(send, "sending a job")
        self.ledger.note(work.key, job.job_id())
        log.info("sent job %s: %d executions of %d shots", job.job_id(), work.rows, work.shots)
        return job

    def _finish(self, mode: Any, work: Work, job: Any, theta: Array, phi: Array) -> Integers:
        """Wait for a job; one that failed is sent again."""
        from qiskit_ibm_runtime import exceptions

        attempts = self.connection.settings.attempts
        for attempt in range(1, attempts + 1):
            try:
                result = self.connection.persist(job.result, f"waiting for job {job.job_id()}")
                return _ones(result, work)
            except exceptions.RuntimeJobFailureError as error:
                self.ledger.forget(work.key)
                self._failed.add(job.job_id())
                if attempt == attempts:
                    fault = f"Job {job.job_id()} failed, as {attempt - 1} before it: {error}"
                    raise JobError(fault) from error
                self.connection.pause(attempt, f"job {job.job_id()} failed")
                job = self._send(mode, work, theta, phi)
            except (
                exceptions.RuntimeInvalidStateError,
                exceptions.RuntimeJobMaxTimeoutError,
            ) as error:
                self.ledger.forget(work.key)
                raise JobError(
                    f"Job {job.job_id()} was cancelled or ran out of time ({error}); it is not "
                    "sent again by itself. A smaller shots_a_job makes shorter jobs."
                ) from error
        raise AssertionError("unreachable: attempts is at least 1")

    def _pub(self, circuit: JointCircuit, flip: bool, theta: Array, phi: Array) -> Any:
        """A parametrised circuit with the angles of its rows."""
        rows = len(circuit.products)
        angles = np.stack([theta[circuit.products], phi[circuit.products]], axis=-1)
        target = self.connection.backend.target
        return (
            joint_circuit(self.device, target, circuit.slots, flip=flip),
            angles.reshape(rows, -1),
        )

    def _reserve(self, shots: int, *, count: bool) -> None:
        limit = self.connection.settings.max_shots
        if self.sent_shots + shots > limit:
            raise CostError(
                f"{shots:,} shots more would be sent, after {self.sent_shots:,}, and max_shots is "
                f"{limit:,}. Fewer products or shots, or a larger max_shots."
            )
        if count:
            self.sent_shots += shots


def _ones(result: Any, work: Work) -> Integers:
    """Number of ones by product, in the order of ``work.circuits``, row by row."""
    counts = []
    for pub, circuit in zip(result, work.circuits, strict=True):
        bits = getattr(pub.data, REGISTER)
        slots = range(circuit.products.shape[1])
        ones = np.stack([bits.slice_bits([slot]).bitcount().sum(-1) for slot in slots], axis=-1)
        counts.append(ones.ravel().astype(np.int64))
    return np.concatenate(counts)
