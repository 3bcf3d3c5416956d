"""A service that is not IBM's: real SamplerV2, batches and sessions on top, scripted faults below.

It keeps jobs as the real one does, runs them on a fake backend when they are asked for results, and
loses the connection, or jobs, when told to.
"""

from collections import Counter

from qiskit_ibm_runtime import IBMBackend, QiskitRuntimeService
from qiskit_ibm_runtime.exceptions import RuntimeJobFailureError, RuntimeJobNotFound
from qiskit_ibm_runtime.fake_provider import FakeNairobiV2
from qiskit_ibm_runtime.fake_provider.local_service import QiskitRuntimeLocalService

TOKEN = "secret-0123456789"


class StandInService(QiskitRuntimeService):
    """Faults are lists by what is asked for; each request takes the first left, ``None``: none.

    Attributes:
        faults: exceptions for ``backend``, ``send`` (the job is not made), ``answer`` (it is, but
            the answer is lost), ``job``, ``jobs`` and ``result``.
        asked: how often.
        sent: jobs by id, in the order of their making.
        sessions: what was opened and closed.
    """

    def __new__(cls, *_, **__):
        return object.__new__(cls)

    def __init__(self, **faults):
        self.faults = {name: list(listed) for name, listed in faults.items()}
        self.asked = Counter()
        self.sent = {}
        self.sessions = []
        self.token = TOKEN

    def fault(self, name):
        self.asked[name] += 1
        listed = self.faults.get(name)
        error = listed.pop(0) if listed else None
        if error is not None:
            raise error

    def backend(self, name):
        self.fault("backend")
        assert name == "ibm_nairobi"
        return StandInBackend(self)

    def job(self, job_id):
        self.fault("job")
        if job_id not in self.sent:
            raise RuntimeJobNotFound(f"Job not found: {job_id}")
        return self.sent[job_id]

    def jobs(self, *, job_tags, limit):
        self.fault("jobs")
        return [job for job in reversed(self.sent.values()) if set(job_tags) <= set(job.tags)]

    def _run(self, program_id, inputs, options, session_id=None, **_):
        self.fault("send")
        job = StandInJob(self, f"job-{len(self.sent)}", options["job_tags"], session_id, inputs)
        self.sent[job.job_id()] = job
        self.fault("answer")
        return job

    def _get_api_client(self, *_):
        return self

    def create_session(self, backend, instance, max_time, mode):
        self.sessions.append(("open", mode, max_time))
        return {"id": "session"}

    def close_session(self, _):
        self.sessions.append(("close",))


class StandInJob:
    def __init__(self, service, job_id, tags, session, inputs):
        self.service, self.tags, self.session, self.inputs = service, tags, session, inputs
        self._id = job_id
        self.failed = False

    def job_id(self):
        return self._id

    def result(self):
        try:
            self.service.fault("result")
        except RuntimeJobFailureError:
            self.failed = True
        if self.failed:
            raise RuntimeJobFailureError(f"Unable to retrieve job result of {self._id}.")
        fake = FakeNairobiV2()
        fake.set_options(seed_simulator=int(self._id.removeprefix("job-")))
        inputs = {"pubs": self.inputs["pubs"], "options": {"simulator": {"seed_simulator": 1}}}
        return QiskitRuntimeLocalService()._run("sampler", inputs, {"backend": fake}, None).result()


class StandInBackend(IBMBackend):
    def __init__(self, service):
        self._fake = FakeNairobiV2()
        super().__init__(self._fake.configuration(), service, None)
        self.name = "ibm_nairobi"

    def properties(self, *_, **__):
        if self._properties is None:
            self._properties = self._fake.properties()
        return self._properties
