"""What happens to jobs when connections and jobs fail, on a stand-in for IBM's service."""

import json
import logging

import numpy as np
import pytest
from ibm_stand_in import TOKEN, StandInService
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import (
    IBMRuntimeError,
    RuntimeInvalidStateError,
    RuntimeJobFailureError,
    RuntimeJobMaxTimeoutError,
)

from qnad_art.circuits.product import Site
from qnad_art.errors import ArtifactError
from qnad_ibm_runtime import connection
from qnad_ibm_runtime.engine import IbmRuntimeEngine
from qnad_ibm_runtime.errors import CostError, JobError

LOST = ConnectionError("reset by peer")
FAILED = RuntimeJobFailureError("failed")
TWO = (np.array([0.4, 1.2]), np.array([1.0, 0.7]), [Site(0)], np.zeros(2, int), np.zeros(2, int))
"""Two products, two executions, one job with raw readout."""


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Seconds that were waited for."""
    waited = []
    monkeypatch.setattr(connection, "sleep", waited.append)
    return waited


@pytest.fixture
def engine(nairobi):
    """Function: an engine on a service, by the name of its device."""

    def build(service, **settings):
        chosen = {"readout": "raw", "shots": 10, "backend": "ibm_nairobi", **settings}
        return IbmRuntimeEngine(nairobi, service=service, **chosen)

    return build


class TestModes:
    @pytest.mark.parametrize("mode", ["batch", "session"])
    def test_jobs_go_through_one_batch_or_session(self, engine, mode):
        service = StandInService()
        engine(service, mode=mode, readout="twirled", max_time=600).expectations(*TWO)
        kind = {"batch": "batch", "session": "dedicated"}[mode]
        assert service.sessions == [("open", kind, 600), ("close",)]
        assert [job.session for job in service.sent.values()] == ["session", "session"]

    def test_or_each_by_itself(self, engine):
        service = StandInService()
        engine(service, mode="job").expectations(*TWO)
        assert service.sessions == []
        assert len(service.sent) == 1

    def test_it_is_closed_after_an_error(self, engine):
        service = StandInService(send=[LOST] * 9)
        with pytest.raises(JobError):
            engine(service).expectations(*TWO)
        assert service.sessions == [("open", "batch", None), ("close",)]

    def test_repetition_delay_and_shots_reach_the_service(self, engine):
        service = StandInService()
        engine(service, rep_delay=1e-4).expectations(*TWO)
        (job,) = service.sent.values()
        assert job.inputs["options"]["execution"]["rep_delay"] == 1e-4
        assert [pub.shots for pub in job.inputs["pubs"]] == [10]
        assert [pub.parameter_values.shape for pub in job.inputs["pubs"]] == [(2,)]


class TestLostConnections:
    @pytest.mark.parametrize("error", [LOST, RequestsApiError("busy", 503), IBMRuntimeError("?")])
    @pytest.mark.parametrize("where", ["backend", "send", "result"])
    def test_requests_are_made_again_after_ever_longer_pauses(self, engine, pauses, where, error):
        service = StandInService(**{where: [error] * 3})
        found = engine(service, backoff=3).expectations(*TWO)
        assert abs(found).max() <= 1
        assert service.asked[where] == 4
        assert pauses == [3, 6, 12]
        assert len(service.sent) == 1

    def test_pauses_are_bounded(self, engine, pauses):
        engine(StandInService(send=[LOST] * 7), attempts=8, backoff=10).expectations(*TWO)
        assert pauses == [10, 20, 40, 60, 60, 60, 60]

    def test_a_job_whose_answer_was_lost_is_not_sent_twice(self, engine):
        service = StandInService(answer=[LOST])
        engine(service).expectations(*TWO)
        assert len(service.sent) == 1
        assert service.asked["jobs"] == 1

    def test_for_good_is_an_error_and_the_next_call_fetches(self, engine):
        service = StandInService(result=[LOST] * 6)
        made = engine(service)
        with pytest.raises(JobError, match="Connection lost 6 times waiting for job job-0"):
            made.expectations(*TWO)
        found = made.expectations(*TWO)
        assert list(service.sent) == ["job-0"]
        assert abs(found).max() <= 1

    def test_refusals_are_not_repeated(self, engine, pauses):
        service = StandInService(send=[RequestsApiError("no such instance", 403)] * 2)
        with pytest.raises(JobError, match="refused sending a job: 'no such instance'"):
            engine(service).expectations(*TWO)
        assert service.asked["send"] == 1
        assert pauses == []


class TestResuming:
    def test_another_process_fetches_by_id(self, engine, tmp_path):
        service, file = StandInService(), tmp_path / "made" / "jobs.json"
        first = engine(service, jobs_file=file, readout="twirled").expectations(*TWO)
        assert sorted(json.loads(file.read_text())["jobs"].values()) == ["job-0", "job-1"]
        again = engine(service, jobs_file=file, readout="twirled", max_shots=1)
        np.testing.assert_array_equal(again.expectations(*TWO), first)
        assert len(service.sent) == 2
        assert service.sessions == [("open", "batch", None), ("close",)]

    def test_other_work_is_sent(self, engine, tmp_path):
        """Another seed, angle, number of shots, or the same work once more in one engine."""
        service, file = StandInService(), tmp_path / "jobs.json"
        made = engine(service, jobs_file=file)
        for _ in range(2):
            made.expectations(*TWO)
        engine(service, jobs_file=file, seed=1).expectations(*TWO)
        engine(service, jobs_file=file, shots=11).expectations(*TWO)
        engine(service, jobs_file=file).expectations(TWO[0] + 0.1, *TWO[1:])
        assert len(service.sent) == 5

    def test_a_process_that_dies_while_sending(self, engine, tmp_path):
        """It noted that it would send; whether it did, the service knows."""
        file = tmp_path / "jobs.json"
        arrived, lost = (
            StandInService(answer=[KeyboardInterrupt()]),
            StandInService(send=[KeyboardInterrupt()]),
        )
        for service in (arrived, lost):
            file.unlink(missing_ok=True)
            with pytest.raises(KeyboardInterrupt):
                engine(service, jobs_file=file).expectations(*TWO)
            assert list(json.loads(file.read_text())["jobs"].values()) == [None]
            engine(service, jobs_file=file).expectations(*TWO)
            assert len(service.sent) == 1

    def test_a_job_that_is_gone_is_sent_again(self, engine, tmp_path):
        file = tmp_path / "jobs.json"
        engine(StandInService(), jobs_file=file).expectations(*TWO)
        other = StandInService()
        engine(other, jobs_file=file).expectations(*TWO)
        assert len(other.sent) == 1

    def test_two_engines_share_a_file(self, engine, tmp_path):
        service, file = StandInService(), tmp_path / "jobs.json"
        engines = [engine(service, jobs_file=file, seed=seed) for seed in (0, 1)]
        for made in engines:
            _ = made.connection.backend, made._jobs  # both have read the file before either writes
        for made in engines:
            made.expectations(*TWO)
        assert sorted(json.loads(file.read_text())["jobs"].values()) == ["job-0", "job-1"]

    @pytest.mark.parametrize("content", ["[1", "{}", '{"format_version": 7, "jobs": {}}'])
    def test_a_file_of_something_else_is_refused(self, engine, tmp_path, content):
        file = tmp_path / "jobs.json"
        file.write_text(content)
        with pytest.raises(ArtifactError, match=r"jobs\.json"):
            engine(StandInService(), jobs_file=file).expectations(*TWO)
        assert file.read_text() == content


class TestFailedJobs:
    def test_are_sent_again(self, engine, pauses):
        service = StandInService(result=[FAILED, FAILED])
        engine(service, backoff=1).expectations(*TWO)
        assert len(service.sent) == 3
        assert pauses == [1, 2]

    def test_are_not_taken_for_the_one_sent_again(self, engine):
        """Sent again, and the connection is lost: the failed one bears the same tag."""
        service = StandInService(result=[FAILED], send=[None, LOST])
        engine(service).expectations(*TWO)
        assert [job.failed for job in service.sent.values()] == [True, False]
        assert service.asked["result"] == 2

    def test_for_good_are_an_error_and_sent_anew_next_time(self, engine):
        service = StandInService(result=[FAILED] * 3)
        made = engine(service, attempts=3)
        with pytest.raises(JobError, match="Job job-2 failed, as 2 before it"):
            made.expectations(*TWO)
        made.expectations(*TWO)
        assert len(service.sent) == 4

    def test_shots_sent_again_count(self, engine):
        service = StandInService(result=[FAILED] * 3)
        with pytest.raises(CostError, match="20 shots more would be sent, after 40"):
            engine(service, max_shots=50).expectations(*TWO)
        assert len(service.sent) == 2

    @pytest.mark.parametrize(
        "error", [RuntimeInvalidStateError("cancelled"), RuntimeJobMaxTimeoutError("too long")]
    )
    def test_cancelled_and_overlong_ones_are_left_to_the_user(self, engine, error):
        service = StandInService(result=[error])
        made = engine(service)
        with pytest.raises(JobError, match="job-0 was cancelled or ran out of time"):
            made.expectations(*TWO)
        assert len(service.sent) == 1
        made.expectations(*TWO)
        assert len(service.sent) == 2


def test_nothing_is_sent_for_a_cost(engine, nairobi):
    service = StandInService()
    assert engine(service).cost(*TWO[2:]).shots == 20
    assert service.asked == {"backend": 1}


def test_tokens_are_neither_logged_nor_kept(engine, tmp_path, caplog):
    service, file = StandInService(send=[LOST], result=[FAILED]), tmp_path / "jobs.json"
    assert service.token == TOKEN
    made = engine(service, jobs_file=file)
    with caplog.at_level(logging.DEBUG, logger="qnad_ibm_runtime"):
        made.expectations(*TWO)
    assert "sent job job-1" in caplog.text
    assert "executions, 20 shots, 1 jobs" in caplog.text
    for written in (caplog.text, file.read_text(), repr(made.settings)):
        assert TOKEN not in written
