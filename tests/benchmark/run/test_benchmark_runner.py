"""Dispatch to engines, workers that die, run folders: a run around the measuring of cells."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

import numpy as np
import pytest

from qnad_art.benchmark.records import Bits, Cell, Interval, Provenance, Result
from qnad_art.benchmark.run import worker
from qnad_art.benchmark.run.dispatch import Dispatch, Done, Failed, Said
from qnad_art.benchmark.run.engines.engine import Engine, Job
from qnad_art.benchmark.run.engines.local_engine import LocalEngine, WorkerDied
from qnad_art.benchmark.run.folder import Failure, Run, locked, read_arrays, write_arrays
from qnad_art.benchmark.run.notes import Notes, note
from qnad_art.errors import ArtifactError, InvalidInputError, QnadError, QnadWarning
from qnad_art.plugins.discovery import VARIABLE


class Killed(Exception):
    """Stands for the death of a worker."""


class Threads(Engine):
    """Carries out scripts: job by job, what each attempt does (the last one for all others)."""

    def __init__(self, run, scripts=None, *, limit=None, there=2):
        super().__init__("threads", Killed, limit=limit)
        self.run, self.scripts, self.there = run, scripts or {}, there
        self.attempts, self.together = Counter(), []
        self.at_work, self.pool = set(), ThreadPoolExecutor(4)

    def workers(self):
        return self.there

    def submit(self, job):
        self.at_work.add(job.key)
        self.together.append(set(self.at_work))
        return self.pool.submit(self.carry_out, job)

    def carry_out(self, job):
        script = self.scripts.get(job.key, ["done"])
        act = script[min(self.attempts[job.key], len(script) - 1)]
        self.attempts[job.key] += 1
        try:
            if act != "killed before it began":
                note(self.run, job.key, None)
            if isinstance(act, Exception):
                raise act
            if act.startswith("killed"):
                raise Killed("SIGKILL")
            if act == "begun again":  # by the engine itself
                note(self.run, job.key, None)
            if act == "raise":
                return json.dumps({"failed": "ValueError: planted", "traceback": "Traceback"})
            note(self.run, job.key, "working")
            return json.dumps({"done": job.key, "seconds": 0.5})
        finally:
            self.at_work.discard(job.key)


def job(key, *needs):
    return Job(key, needs, "{}", f"job {key}")


def dispatched(run, jobs, scripts=None, **settings):
    engine = Threads(run, scripts, **settings)
    with Notes(run) as notes:
        return engine, list(Dispatch(jobs, engine, notes).events())


def done_in(events):
    return [event.job.key for event in events if isinstance(event, Done)]


def failed_in(events):
    return {event.job.key: event for event in events if isinstance(event, Failed)}


def said_in(events):
    return [event.line for event in events if isinstance(event, Said)]


class TestDispatch:
    def test_every_job_is_done_once_and_after_what_it_needs(self, tmp_path):
        jobs = [job("a"), *(job(f"b{i}", "a", "elsewhere") for i in range(10)), job("c", "b3")]
        engine, events = dispatched(tmp_path, jobs)
        done = done_in(events)
        assert Counter(done) == engine.attempts == {j.key: 1 for j in jobs}
        assert done[0] == "a"
        assert done.index("c") > done.index("b3")
        assert all(e.value == e.job.key and e.seconds == 0.5 for e in events if type(e) is Done)

    def test_what_workers_note_is_told(self, tmp_path):
        _, events = dispatched(tmp_path, [job("a")])
        assert said_in(events) == ["The first worker is at work: job a", "job a: working"]
        assert list(tmp_path.iterdir()) == []

    def test_a_failure_costs_its_job_and_what_needs_it(self, tmp_path):
        jobs = [job("bad"), job("after", "bad"), job("later", "after"), job("good")]
        _, events = dispatched(tmp_path, jobs, {"bad": ["raise"]})
        assert done_in(events) == ["good"]
        failed = failed_in(events)
        assert set(failed) == {"bad", "after", "later"}
        assert (failed["bad"].reason, failed["bad"].details) == ("ValueError: planted", "Traceback")
        for key in ("after", "later"):
            assert failed[key].reason == "it needs job bad, which failed: ValueError: planted"

    def test_what_an_engine_raises_costs_its_job(self, tmp_path):
        error = ModuleNotFoundError("no qnad_art here")
        _, events = dispatched(tmp_path, [job("a"), job("b")], {"a": [error]})
        assert done_in(events) == ["b"]
        assert failed_in(events)["a"].reason == "ModuleNotFoundError: no qnad_art here"

    def test_a_job_whose_worker_dies_twice_is_done_and_the_third_death_is_its_last(self, tmp_path):
        scripts = {"unlucky": ["killed", "killed", "done"], "killer": ["killed"]}
        jobs = [job("unlucky"), job("killer"), job("after", "killer"), job("other")]
        engine, events = dispatched(tmp_path, jobs, scripts)
        assert set(done_in(events)) == {"unlucky", "other"}
        assert set(failed_in(events)) == {"killer", "after"}
        reason = failed_in(events)["killer"].reason
        assert "workers died repeatedly, the last one by: SIGKILL" in reason
        assert engine.attempts == {"unlucky": 3, "killer": 3, "other": 1}
        assert "A worker died (SIGKILL): job unlucky" in said_in(events)

    def test_a_job_that_had_not_begun_is_not_to_blame(self, tmp_path):
        scripts = {"a": [*["killed before it began"] * 5, "done"]}
        engine, events = dispatched(tmp_path, [job("a")], scripts)
        assert done_in(events) == ["a"]
        assert engine.attempts["a"] == 6

    def test_workers_that_never_begin_end_it(self, tmp_path):
        _, events = dispatched(tmp_path, [job("a")], {"a": ["killed before it began"]})
        assert set(failed_in(events)) == {"a"}

    def test_what_an_engine_tries_again_by_itself_is_told(self, tmp_path):
        _, events = dispatched(tmp_path, [job("a")], {"a": ["begun again"]})
        assert "Started again because its worker died: job a" in said_in(events)
        assert done_in(events) == ["a"]

    def test_a_limit_holds(self, tmp_path):
        engine, events = dispatched(tmp_path, [job(f"{i}") for i in range(9)], limit=2)
        assert len(done_in(events)) == 9
        assert max(len(keys) for keys in engine.together) <= 2

    @pytest.mark.parametrize("error", [QnadError("the engine is gone"), CancelledError()])
    def test_an_engine_that_cannot_go_on_ends_the_run(self, error, tmp_path):
        with pytest.raises(QnadError, match="cannot continue"):
            dispatched(tmp_path, [job("a")], {"a": [error]})

    def test_it_is_said_that_there_are_no_workers(self, tmp_path, monkeypatch):
        monkeypatch.setattr("qnad_art.benchmark.run.dispatch._LISTEN_SECONDS", 0.02)

        class Nobody(Threads):
            def carry_out(self, job):
                time.sleep(0.7)
                return super().carry_out(job)

        engine = Nobody(tmp_path, there=0)
        with Notes(tmp_path) as notes:
            events = list(Dispatch([job("a")], engine, notes).events())
        assert said_in(events)[0].startswith("There are no workers")


# Stands for a worker process: it does what its job says.
WORKER = """
import os, signal, sys, time
for line in sys.stdin:
    do = line.strip()
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "half":
        os.write(1, b"half an answ")
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "exit":
        sys.exit("planted")
    if do == "sleep":
        time.sleep(60)
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    answer = " ".join(f"{name}={os.environ.get(name)}" for name in names)
    print(answer if do == "environment" else f"{do} by {os.getpid()}", flush=True)
"""


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Function: an engine whose processes run the script above, closed at the end."""
    script, python = tmp_path / "worker.py", tmp_path / "python"
    script.write_text(WORKER)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}"\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    started = []

    def start(count=2, **settings):
        started.append(LocalEngine(count, **settings))
        return started[-1]

    yield start
    for engine in started:
        engine.close()


def asked(engine, *texts):
    """Futures of jobs with these texts."""
    return [engine.submit(Job(text, (), text, text)) for text in texts]


class TestLocalEngine:
    def test_a_death_costs_its_job_and_no_other(self, local):
        engine = local()
        slow, *others = asked(engine, "a", "die", "half", "exit", "b", "c")
        wait([slow, *others])
        answers = [f.exception() or f.result().split(" by ")[0] for f in (slow, *others)]
        assert [a for a in answers if isinstance(a, str)] == ["a", "b", "c"]
        deaths = [str(a) for a in answers if isinstance(a, WorkerDied)]
        assert deaths == ["SIGKILL", "SIGKILL", "exit status 1: planted"]

    def test_all_processes_start_at_once_and_take_turns(self, local):
        engine = local(3)
        answers = {f.result() for f in asked(engine, *"abcdefghi")}
        assert len({answer.split(" by ")[1] for answer in answers}) <= 3
        assert engine.workers() == len(engine._processes) == 3

    @pytest.mark.parametrize(("gpu", "visible"), [(False, ""), (True, "0")])
    def test_they_have_one_thread_and_see_a_gpu_only_if_they_are_to(
        self, gpu, visible, local, monkeypatch
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        (answer,) = asked(local(1, gpu=gpu), "environment")
        assert answer.result() == f"OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES={visible}\n"

    def test_closing_ends_whatever_they_do(self, local):
        engine = local()
        asked(engine, "sleep", "sleep", "never")
        started = time.monotonic()
        engine.close()
        assert time.monotonic() - started < 5
        assert not engine._processes


def test_a_worker_ends_with_whoever_started_it():
    # While it imports, while it waits: its standard input ends, as when the run is killed.
    for delay in (0.0, 1.0):
        command = [sys.executable, "-m", "qnad_art.benchmark.run.worker"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            time.sleep(delay)
            process.stdin.close()
            assert process.wait(timeout=30) == 0


class Doing:
    """Stands for the worker that measures cells."""

    def __init__(self, act):
        self.act = act

    def carry_out(self, job, say):
        return self.act(say)


@pytest.fixture
def outcome(tmp_path, monkeypatch):
    """Function: what comes of a job that does something, and what was noted meanwhile."""

    def carry_out(act, *, plugins=None, gpu=False):
        monkeypatch.setattr(worker, "_worker", lambda gpu: Doing(act))
        task = {"run": str(tmp_path), "work": {"key": "k"}, "plugins": plugins, "gpu": gpu}
        with Notes(tmp_path) as notes:
            answer = json.loads(worker.carry_out(json.dumps(task)))
            return answer, list(notes.new())

    return carry_out


class TestWorker:
    def test_a_result_and_what_is_said_on_the_way(self, outcome):
        answer, noted = outcome(lambda say: say("half of it\ndone") or {"accuracy": 1})
        assert answer["done"] == {"accuracy": 1}
        assert answer["seconds"] >= 0
        assert noted == [("k", None), ("k", "half of it\ndone")]

    def test_warnings_of_ours_are_told_once(self, outcome):
        import warnings

        def warn(say):
            for category in (QnadWarning, QnadWarning, DeprecationWarning):
                warnings.warn("planted", category, stacklevel=1)

        assert outcome(warn)[1] == [("k", None), ("k", "warning: planted")]

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ValueError("planted"), "ValueError: planted"),
            (SystemExit("out"), "SystemExit: out"),
        ],
    )
    def test_an_exception_is_told_with_its_traceback(self, error, reason, outcome):
        def fail(say):
            raise error

        answer, _ = outcome(fail)
        assert answer["failed"] == reason
        assert "in fail" in answer["traceback"]

    def test_what_is_not_json_fails(self, outcome):
        assert "ValueError" in outcome(lambda say: float("nan"))[0]["failed"]

    @pytest.mark.parametrize("allowed", [None, "", "qnad-good"])
    def test_the_allow_list_of_the_run_holds_and_not_that_of_the_cluster(
        self, allowed, outcome, monkeypatch
    ):
        monkeypatch.setenv(VARIABLE, "of the cluster")
        answer, _ = outcome(lambda say: os.environ.get(VARIABLE), plugins=allowed)
        assert answer["done"] == allowed
        assert os.environ[VARIABLE] == "of the cluster"

    @pytest.mark.parametrize(("gpu", "visible"), [(False, ""), (True, "0")])
    def test_a_gpu_is_hidden_unless_it_is_to_be_used(self, gpu, visible, outcome, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        answer, _ = outcome(lambda say: os.environ["CUDA_VISIBLE_DEVICES"], gpu=gpu)
        assert answer["done"] == visible

    def test_a_worker_that_does_not_see_the_folder_says_so(self, tmp_path):
        task = {"run": str(tmp_path / "gone"), "work": {"key": "k"}, "plugins": None, "gpu": False}
        answer = json.loads(worker.carry_out(json.dumps(task)))
        assert "all workers must see the folder" in answer["failed"]

    def test_jobs_of_several_threads_take_turns(self, outcome, monkeypatch, tmp_path):
        inside, most = [], []

        def act(say):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

        monkeypatch.setattr(worker, "_worker", lambda gpu: Doing(act))
        task = {"run": str(tmp_path), "work": {"key": "k"}, "plugins": None, "gpu": False}
        with Notes(tmp_path), ThreadPoolExecutor(4) as pool:
            list(pool.map(worker.carry_out, [json.dumps(task)] * 8))
        assert most == [1] * 8


def test_half_a_note_is_read_once_it_is_whole_and_none_if_its_writer_died(tmp_path):
    with Notes(tmp_path) as notes:
        note(tmp_path, "k", "first")
        assert list(notes.new()) == [("k", "first")]
        with (tmp_path / "progress" / "k.jsonl").open("a") as file:
            file.write('"ha')
            file.flush()
            assert list(notes.new()) == []
            file.write('lf"\n"ha')
        assert list(notes.new()) == [("k", "half")]
        note(tmp_path, "k", None)
        assert list(notes.new()) == [("k", None)]
        notes.drop("k")
        note(tmp_path, "k", "again")
        assert list(notes.new()) == [("k", "again")]
    assert list(tmp_path.iterdir()) == []


def test_a_dask_cluster_names_its_tasks_and_gives_work_to_workers_that_join(tmp_path):
    from distributed import Client, LocalCluster

    from qnad_art.benchmark.run.engines.dask_engine import DaskEngine

    text = json.dumps({"run": str(tmp_path), "work": {"key": "k"}, "plugins": None, "gpu": False})
    waiting = [Job(f"k{i}", (), text, f"lenet5 · none · seed {i}", "cell") for i in range(3)]
    nobody = {"n_workers": 0, "processes": False, "dashboard_address": None}
    with LocalCluster(**nobody) as cluster, Client(cluster, set_as_default=False) as client:
        engine = DaskEngine(client)
        assert engine.workers() == 0
        with Notes(tmp_path) as notes:
            dispatch = Dispatch(waiting, engine, notes)
            names = []

            def join():
                while len(cluster.scheduler.tasks) < 3:
                    time.sleep(0.01)
                names.extend(sorted(cluster.scheduler.tasks))
                cluster.scale(1)

            joining = threading.Thread(target=join)
            joining.start()
            events = list(dispatch.events())
            joining.join()
    # They fail, for nothing is said of what is to be done: that is an answer too.
    assert set(failed_in(events)) == {"k0", "k1", "k2"}
    for i, (kind, name) in enumerate(names):
        assert kind == "cell"
        assert name.startswith(f"lenet5 · none · seed {i} (")


def a_cell(**changes):
    given = {"model": "m", "data": "d", "device": "q", "defence": "none", "seed": 0}
    return Cell(kind="clean", **{**given, **changes})


def a_result(key, cell):
    correct = np.array([[True, False, True]])
    interval = Interval(value=2 / 3, low=0.2, high=0.9)
    return Result(
        key=key,
        cell=cell,
        accuracy=interval,
        majority=interval,
        every_draw=interval,
        images=3,
        draws=1,
        correct=Bits.pack(correct),
        votes=Bits.pack(correct[0]),
        seconds=1.0,
        provenance=Provenance(
            device_hash=None,
            shots=None,
            plan=None,
            data_hash="x",
            weights_hash="y",
            seed=0,
            versions={},
        ),
    )


class NoSuite:
    """A suite as far as run folders look at it."""

    def model_dump(self, mode):
        return {"name": "none"}


@pytest.fixture
def run(tmp_path):
    cells = {"k0": a_cell(), "k1": a_cell(seed=1), "k2": a_cell(seed=2)}
    return Run.begin(tmp_path / "run", NoSuite(), cells)


class TestRunFolder:
    def test_results_come_back_in_the_order_of_the_suite(self, run):
        results = [a_result(key, run.cells[key]) for key in ("k2", "k0")]
        for result in results:
            run.append(result)
        assert Run.open(run.folder).results() == results[::-1]

    def test_half_a_line_is_left_out_and_cut_off_with_a_warning(self, run):
        first, second = (a_result(key, run.cells[key]) for key in ("k0", "k1"))
        run.append(first)
        whole = (run.folder / "results.jsonl").read_bytes()
        half = second.model_dump_json()[:100].encode()
        (run.folder / "results.jsonl").write_bytes(whole + half)
        assert run.results() == [first]
        with pytest.warns(QnadWarning, match="half a line"):
            run.repair()
        assert (run.folder / "results.jsonl").read_bytes() == whole
        run.append(second)
        assert run.results() == [first, second]

    def test_half_a_preparation_is_removed(self, run):
        done, half = run.prepared("abc"), run.prepared(".abc.x1")
        for folder in (done, half):
            (folder / "deep").mkdir(parents=True)
        checkpoint = run.prepared(".abc.checkpoint.safetensors")
        checkpoint.touch()
        run.repair()
        assert done.is_dir()
        assert checkpoint.is_file()
        assert not half.exists()

    def test_a_damaged_line_is_an_error_with_its_number(self, run):
        run.append(a_result("k0", run.cells["k0"]))
        with (run.folder / "results.jsonl").open("a") as file:
            file.write("{}\n")
        with pytest.raises(ArtifactError, match="line 2"):
            run.results()

    def test_a_folder_takes_the_same_cells_again_and_no_others(self, run):
        again = Run.begin(run.folder, NoSuite(), dict(reversed(run.cells.items())))
        assert again.cells == run.cells
        with pytest.raises(InvalidInputError, match="other cells"):
            Run.begin(run.folder, NoSuite(), {"k0": a_cell()})

    def test_a_revised_run_keeps_what_fits(self, run):
        results = [a_result(key, cell) for key, cell in run.cells.items()]
        for result in results:
            run.append(result)
        failure = Failure(key="k2", cell=run.cells["k2"], reason="planted")
        run.set_failures([failure])
        # One cell as it was, one under another label, one new.
        cells = {"k0": run.cells["k0"], "k1": a_cell(seed=7), "k3": a_cell(seed=3)}
        revised = Run.begin(run.folder, NoSuite(), cells, revise=True)
        assert revised.cells == Run.open(run.folder).cells == cells
        assert revised.results() == results[:1]
        assert revised.failures() == ()

    def test_what_a_revised_run_keeps_is_still_sealed(self, run):
        for key, cell in run.cells.items():
            run.append(a_result(key, cell))
        revised = Run.begin(run.folder, NoSuite(), {"k0": run.cells["k0"]}, revise=True)
        path = run.folder / "results.jsonl"
        edited = {**json.loads(path.read_text()), "seconds": 0.5}
        path.write_text(json.dumps(edited) + "\n")
        with pytest.raises(ArtifactError, match="line 1 fails its checksum"):
            revised.results()

    def test_a_folder_with_something_else_is_not_touched(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(InvalidInputError, match="not empty"):
            Run.begin(tmp_path, NoSuite(), {})
        with pytest.raises(InvalidInputError, match="not empty"), locked(tmp_path):
            pass
        with pytest.raises(ArtifactError, match="not a run folder"):
            Run.open(tmp_path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]

    def test_failures_are_kept(self, run):
        failure = Failure(key="k0", cell=run.cells["k0"], reason="planted")
        run.set_failures([failure])
        assert Run.open(run.folder).failures() == (failure,)

    def test_arrays_come_back(self, tmp_path):
        path = tmp_path / "deep" / "a.npz"
        assert read_arrays(path) is None
        write_arrays(path, {"x": np.arange(3)})
        assert read_arrays(path)["x"].tolist() == [0, 1, 2]
        path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(ArtifactError, match="damaged"):
            read_arrays(path)

    def test_one_process_at_a_time_and_the_lock_dies_with_it(self, tmp_path):
        code = (
            "import sys, time; from pathlib import Path;"
            "from qnad_art.benchmark.run.folder import locked\n"
            "with locked(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
        ) as other:
            assert other.stdout.readline() == b"locked\n"
            with pytest.raises(QnadError, match="in use"), locked(tmp_path):
                pass
            os.kill(other.pid, signal.SIGKILL)
        with locked(tmp_path):
            pass
