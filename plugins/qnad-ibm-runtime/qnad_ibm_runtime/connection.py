"""IBM's service as far as the engine needs it: send jobs, and find them again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from time import sleep
from typing import TYPE_CHECKING, Any, TypeVar

from qnad_art.errors import InvalidInputError
from qnad_ibm_runtime.errors import JobError
from qnad_ibm_runtime.settings import RuntimeSettings

if TYPE_CHECKING:
    from qiskit.providers import BackendV2

log = logging.getLogger("qnad_ibm_runtime")

LONGEST_PAUSE = 60.0
"""Seconds between two attempts, at most."""

T = TypeVar("T")


class Connection:
    """One backend, and the service that it belongs to.

    Args:
        settings: backend by name, mode, attempts.
        backend: in place of the name in the settings; anything but an ``IBMBackend`` runs locally.
        service: a ``QiskitRuntimeService``; by default one is made with the account that
            qiskit-ibm-runtime has saved (or finds in its own environment variables).

    Raises:
        InvalidInputError: no backend was named.
    """

    def __init__(
        self,
        settings: RuntimeSettings,
        *,
        backend: BackendV2 | None = None,
        service: Any = None,
    ) -> None:
        if backend is None and settings.backend is None:
            raise InvalidInputError(
                "Engine ibm-runtime sends nothing without a backend that you name: "
                "backend='ibm_…' (or 'fake_…' to run locally), or QNAD_IBM_BACKEND."
            )
        self.settings = settings
        self._backend = backend
        self._service = service
        self._local_jobs: dict[str, Any] = {}

    @cached_property
    def backend(self) -> BackendV2:
        """The device; looked up, with retries, when it is first needed."""
        if self._backend is not None:
            return self._backend
        name = str(self.settings.backend)
        if self._service is None and name.startswith("fake_"):
            return _fake_backend(name)
        return self.persist(lambda: self.service.backend(name), f"looking up {name}")

    @cached_property
    def service(self) -> Any:
        """The backend's service, the one that was given, or one of the saved account."""
        from qiskit_ibm_runtime import IBMBackend, QiskitRuntimeService

        if self._service is not None:
            return self._service
        if isinstance(self._backend, IBMBackend):
            return self._backend.service
        return QiskitRuntimeService()

    @cached_property
    def local(self) -> bool:
        """Whether jobs run in this process, where no service knows them."""
        from qiskit_ibm_runtime import IBMBackend

        return not isinstance(self.backend, IBMBackend)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """What jobs are sent through: a batch, a session, or the backend itself."""
        from qiskit_ibm_runtime import Batch, Session

        if self.local or self.settings.mode == "job":
            yield self.backend
            return
        kind = {"batch": Batch, "session": Session}[self.settings.mode]
        mode = self.persist(
            lambda: kind(backend=self.backend, max_time=self.settings.max_time),
            f"opening a {self.settings.mode}",
        )
        try:
            yield mode
        finally:
            # Queued jobs still run; without this the service closes it when it has idled.
            self.persist(mode.close, f"closing the {self.settings.mode}")

    def send(self, mode: Any, pubs: Sequence[Any], *, shots: int, tag: str, seed: int) -> Any:
        """Send one job, once; ``tag`` marks it so that :meth:`find` finds it."""
        from qiskit_ibm_runtime import SamplerV2

        options: dict[str, Any] = {}
        if self.local:
            options["simulator"] = {"seed_simulator": seed}
        else:
            options["environment"] = {"job_tags": [tag]}
            if self.settings.rep_delay is not None:
                options["execution"] = {"rep_delay": self.settings.rep_delay}
        job = SamplerV2(mode=mode, options=options).run(pubs, shots=shots)
        if self.local:
            self._local_jobs[job.job_id()] = job
        return job

    def job(self, job_id: str) -> Any:
        """A job that was sent; raises qiskit-ibm-runtime's ``RuntimeJobNotFound`` without it."""
        return self._local_jobs[job_id] if self.local else self.service.job(job_id)

    def find(self, tag: str, besides: Container[str] = ()) -> Any | None:
        """The newest job with a tag, if there is one besides those with the given ids."""
        if self.local:
            return None
        found = self.service.jobs(job_tags=[tag], limit=None)
        return next((job for job in found if job.job_id() not in besides), None)

    def persist(self, act: Callable[[], T], what: str) -> T:
        """``act()``, again after a pause while the connection is lost.

        Raises:
            JobError: it was lost at every attempt, or the service refused.
            QiskitError: what became of a job, see :func:`is_about_job`.
        """
        from qiskit_ibm_runtime.exceptions import IBMError

        for attempt in range(1, self.settings.attempts + 1):
            try:
                return act()
            except Exception as error:
                if isinstance(error, IBMError) and not is_lost(error) and not is_about_job(error):
                    raise JobError(f"The service refused {what}: {error}") from error
                if not is_lost(error):
                    raise
                if attempt == self.settings.attempts:
                    raise JobError(
                        f"Connection lost {attempt} times {what}: {type(error).__name__}. Call "
                        "again with the same work: what was sent is fetched, not sent again."
                    ) from error
                self.pause(attempt, f"connection lost {what} ({type(error).__name__})")
        raise AssertionError("unreachable: attempts is at least 1")

    def pause(self, attempt: int, why: str) -> None:
        """Wait before the next attempt, twice as long each time."""
        seconds = min(self.settings.backoff * 2 ** (attempt - 1), LONGEST_PAUSE)
        log.warning("%s; attempt %d follows in %.0f s", why, attempt + 1, seconds)
        sleep(seconds)


def is_lost(error: Exception) -> bool:
    """Whether it is a matter of the connection or a busy service, so that trying again may help."""
    from qiskit_ibm_runtime.api.exceptions import RequestsApiError
    from qiskit_ibm_runtime.exceptions import IBMApiError, IBMRuntimeError

    if isinstance(error, RequestsApiError):
        return error.status_code in (-1, 408, 429) or error.status_code >= 500
    # The service hides refused and lost requests alike in an IBMRuntimeError; both end after
    # `attempts`. Errors of `requests` are OSErrors.
    return isinstance(error, (OSError, IBMApiError, IBMRuntimeError)) and not is_about_job(error)


def is_about_job(error: Exception) -> bool:
    """Whether it says that a job failed, was cancelled, took too long or is not there."""
    from qiskit_ibm_runtime import exceptions

    kinds = (
        exceptions.RuntimeJobFailureError,
        exceptions.RuntimeInvalidStateError,
        exceptions.RuntimeJobMaxTimeoutError,
        exceptions.RuntimeJobNotFound,
    )
    return isinstance(error, kinds)


def _fake_backend(name: str) -> BackendV2:
    from qnad_art.device.backends import fake_backends
    from qnad_art.errors import UnknownNameError

    fakes = fake_backends()
    real = name.replace("fake_", "ibm_", 1)
    if real not in fakes:
        valid = [known.replace("ibm_", "fake_", 1) for known in fakes]
        raise UnknownNameError("backend", name, valid)
    return fakes[real]()
