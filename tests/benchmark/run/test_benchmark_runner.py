"""Schedules, workers that die, run folders: what a run does around the measuring of cells."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest

from qnad_art.benchmark.records import Bits, Cell, Interval, Provenance, Result
from qnad_art.benchmark.run.dispatch import Dispatch, Done, Failed
from qnad_art.benchmark.run.engines import Engine
from qnad_art.benchmark.run.folder import Failure, Run, locked, read_arrays, write_arrays
from qnad_art.benchmark.run.schedule import Job, Schedule
from qnad_art.errors import ArtifactError, InvalidInputError, QnadError, QnadWarning

# A worker process that does what its task says; the real one measures cells instead.
WORKER = """
import os, signal, socket, sys, time
from qnad_art.benchmark.run.wire import Wire
from qnad_art.benchmark.run.worker import listen, serve

def carry_out(task, say):
    say("working")
    if "file" in task:  # dies the first time only
        if not os.path.exists(task["file"]):
            open(task["file"], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
    if task["do"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task["do"] == "raise":
        raise ValueError("planted")
    if task["do"] == "nan":
        return float("nan")
    time.sleep(task.get("sleep", 0))
    return task["do"]

wire = Wire(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
wire.prove(sys.argv[2])
serve(wire, listen(wire), carry_out)
"""


class Processes(Engine):
    """Worker processes of the script above, started again when they die."""

    def run(self, port, secret):
        def keep():
            command = [sys.executable, "-c", WORKER, str(port), secret]
            while subprocess.run(command, stderr=subprocess.DEVNULL).returncode < 0:
                pass

        threads = [threading.Thread(target=keep) for _ in range(self.workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def job(key, *needs, do=None, **more):
    return Job(key, needs, {"do": do or key, **more}, f"job {key}")


def events_of(jobs, workers=2):
    with Dispatch(jobs, Processes(workers, "127.0.0.1", {})) as dispatch:
        return list(dispatch.events())


class TestSchedule:
    def test_jobs_come_in_order_and_after_what_they_need(self):
        schedule = Schedule([job("c", "b"), job("a"), job("b", "a"), job("d", "elsewhere")])
        first = schedule.take()
        assert first.key == "a"
        assert schedule.take().key == "d"
        schedule.finish(first)
        second = schedule.take()
        assert second.key == "b"
        schedule.finish(second)
        assert schedule.take().key == "c"

    def test_what_needs_a_failed_job_fails_too(self):
        schedule = Schedule([job("a"), job("b", "a"), job("c", "b"), job("d")])
        assert [j.key for j in schedule.fail(schedule.take())] == ["b", "c"]
        schedule.finish(schedule.take())
        assert schedule.over
        assert schedule.take() is None

    def test_a_job_is_tried_again_once(self):
        schedule = Schedule([job("a")])
        assert schedule.died(schedule.take())
        assert not schedule.died(schedule.take())

    def test_taking_waits_for_what_is_needed(self):
        schedule = Schedule([job("a"), job("b", "a")])
        first = schedule.take()
        taken = []
        waiting = threading.Thread(target=lambda: taken.append(schedule.take()))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        schedule.finish(first)
        waiting.join(10)
        assert [j.key for j in taken] == ["b"]


class TestDispatch:
    def test_every_job_is_done_once(self):
        jobs = [job("a"), *(job(f"b{i}", "a") for i in range(10))]
        done = [event for event in events_of(jobs) if isinstance(event, Done)]
        assert Counter(event.job.key for event in done) == {j.key: 1 for j in jobs}
        assert all(event.value == event.job.key for event in done)
        assert done[0].job.key == "a"

    def test_an_exception_costs_its_job_and_what_needs_it(self):
        jobs = [job("bad", do="raise"), job("after", "bad"), job("nan", do="nan"), job("good")]
        events = events_of(jobs)
        assert [e.value for e in events if isinstance(e, Done)] == ["good"]
        failed = {e.job.key: e for e in events if isinstance(e, Failed)}
        assert set(failed) == {"bad", "after", "nan"}
        assert failed["bad"].reason == "ValueError: planted"
        assert "Traceback" in failed["bad"].details
        assert "job bad: ValueError: planted" in failed["after"].reason

    def test_a_worker_killed_once_costs_nothing_and_twice_its_job(self, tmp_path):
        jobs = [
            job("killer", do="die"),
            job("victim", file=str(tmp_path / "died")),
            *(job(f"b{i}") for i in range(5)),
        ]
        events = events_of(jobs)
        done = {e.job.key for e in events if isinstance(e, Done)}
        assert done == {"victim", *(f"b{i}" for i in range(5))}
        (failed,) = (e for e in events if isinstance(e, Failed))
        assert failed.job.key == "killer"
        assert "died twice" in failed.reason

    def test_workers_end_with_the_run(self):
        jobs = [job("long", sleep=60), job("short")]
        with Dispatch(jobs, Processes(2, "127.0.0.1", {})) as dispatch:
            lanes = dispatch._lanes
            for event in dispatch.events():
                if isinstance(event, Done):
                    break
        lanes.join(5)
        assert not lanes.is_alive()

    def test_who_does_not_know_the_secret_gets_nothing(self):
        class Strangers(Engine):
            def run(self, port, secret):
                subprocess.run(
                    [sys.executable, "-c", WORKER, str(port), "wrong"], stderr=subprocess.DEVNULL
                )

        with (
            pytest.raises(QnadError, match="No workers are left"),
            Dispatch([job("a")], Strangers(1, "127.0.0.1", {})) as dispatch,
        ):
            list(dispatch.events())


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
        with pytest.raises(ArtifactError, match="no run folder"):
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
