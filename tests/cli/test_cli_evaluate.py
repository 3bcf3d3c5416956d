"""``qnad evaluate``: what is measured, and that nothing is lost or run twice, whatever happens."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest
import torch
from small_runs import SUITE
from typer.testing import CliRunner

from qnad_art.benchmark.run.folder import Run, locked
from qnad_art.cli import app

CELLS = 10


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "tiny.yaml"
    path.write_text(SUITE)
    return path


def command(suite, folder, *options):
    arguments = ["evaluate", suite, "--output", folder, "--workers", 2, *options]
    return [str(argument) for argument in arguments]


def evaluate(suite, folder, *options):
    return CliRunner().invoke(app, command(suite, folder, *options), env={"COLUMNS": "200"})


def started(suite, folder, *options):
    """``qnad evaluate`` as a process of its own."""
    code = "from qnad_art.cli import main; main()"
    arguments = [sys.executable, "-c", code, *command(suite, folder, *options)]
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # As from a terminal: background jobs and pytest-xdist ignore it, and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def measured(folder):
    """Figures by key; a key that comes twice is an error."""
    lines = (folder / "results.jsonl").read_text().splitlines()
    results = [json.loads(line) for line in lines]
    for result in results:
        assert result.pop("seconds") >= 0
        assert len(result.pop("sha256")) == 64  # of everything, the seconds too
    found = {result["key"]: result for result in results}
    assert len(found) == len(results)
    return found


def lines_in(folder):
    path = folder / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_results(folder, count, process=None):
    while lines_in(folder) < count:
        assert process is None or process.poll() is None, process.stdout.read().decode()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = evaluate(suite, folder)
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_every_cell_is_measured_and_told(undisturbed):
    folder, output = undisturbed
    run = Run.open(folder)
    assert set(measured(folder)) == set(run.cells)
    assert [result.cell for result in run.results()] == list(run.cells.values())
    assert len(run.cells) == CELLS
    assert f"{CELLS} of {CELLS} cells are measured" in output
    assert (
        "left] small · ibm_nairobi · noisy · pgd · ε 0.1 · white-box · seed 0: accuracy" in output
    )
    log = (folder / "log.txt").read_text()
    assert "left] small · ibm_nairobi · noisy · pgd · ε 0.1 · white-box · seed 0: accuracy" in log
    assert run.failures() == ()


def test_results_say_what_they_depend_on(undisturbed):
    by_defence = {result.cell.defence: result for result in Run.open(undisturbed[0]).results()}
    noisy, none = by_defence["noisy"], by_defence["none"]
    assert noisy.draws == 2
    assert noisy.provenance.shots == 64
    assert noisy.provenance.device_hash
    assert noisy.provenance.plan.strategy == "none"
    assert (none.draws, none.provenance.shots, none.provenance.device_hash) == (1, None, None)
    assert noisy.provenance.weights_hash == none.provenance.weights_hash
    assert {"qnad-art", "torch", "python"} <= set(noisy.provenance.versions)


def test_examples_are_kept_and_are_what_was_scored(undisturbed):
    run = Run.open(undisturbed[0])
    for result in run.results():
        kept = run.examples(result.key)
        correct = kept["predicted"] == kept["y"]
        assert (correct == result.correct.unpack()).all()
        if result.cell.kind == "attack":
            change = abs(kept["x_adv"] - kept["x"]).max()
            assert 0.05 < change <= 0.1 + 1e-6


def test_transferred_examples_are_the_same_for_all_defences(undisturbed):
    run = Run.open(undisturbed[0])
    for attack in ("fgsm", "pgd"):
        none, noisy = (
            run.examples(r.key)["x_adv"]
            for r in run.results()
            if (r.cell.rung, r.cell.attack) == ("transfer", attack)
        )
        assert (none == noisy).all()


def test_the_same_command_measures_nothing_twice(undisturbed, suite):
    folder, _ = undisturbed
    before = (folder / "results.jsonl").read_bytes()
    again = evaluate(suite, folder)
    assert again.exit_code == 0, again.output
    assert f"0 cells to measure, {CELLS} are there" in again.output
    assert (folder / "results.jsonl").read_bytes() == before


def test_a_dry_run_lists_cells_and_estimates(suite, tmp_path):
    shown = evaluate(suite, tmp_path / "none", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "small · ibm_nairobi · none · fgsm · ε 0.1 · transfer · seed 0" in shown.output
    assert f"{CELLS} cells and 3 preparations, about 0:00:" in shown.output
    assert "counts of passes, times a pass measured just now" in shown.output
    assert "Skipping 2 cells: pgd is a gradient attack, not for the rung black-box" in shown.output
    assert not (tmp_path / "none").exists()


def test_a_pattern_that_no_cell_matches(suite, tmp_path):
    none = evaluate(suite, tmp_path, "--only", "nothing*")
    assert "No cell matches" in str(none.exception)


def test_one_run_at_a_time(suite, tmp_path):
    with locked(tmp_path):
        refused = evaluate(suite, tmp_path)
    assert "in use by another" in str(refused.exception)


@pytest.mark.slow
def test_stopped_and_killed_runs_go_on(suite, tmp_path, undisturbed):
    folder = tmp_path / "run"
    process = started(suite, folder)
    wait_for_line(folder, "epoch 1 of")
    stop(process, signal.SIGINT)

    process = started(suite, folder)
    wait_for_results(folder, lines_in(folder) + 1, process)
    stop(process, signal.SIGTERM)

    process = started(suite, folder)
    workers = wait_for_workers(process)
    wait_for_results(folder, lines_in(folder) + 1, process)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(workers, timeout=5)[1]  # they end with the run

    done = evaluate(suite, folder)
    assert done.exit_code == 0, done.output
    assert measured(folder) == measured(undisturbed[0])


def stop(process, number):
    """Send a signal; the run and its workers end in time."""
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    sent = time.monotonic()
    output = process.communicate()[0].decode()
    assert not psutil.wait_procs(workers, timeout=5)[1]
    assert time.monotonic() - sent < 2
    assert process.returncode == 130, output
    assert "repeat the command to continue" in output


def wait_for_line(folder, text):
    log = folder / "log.txt"
    while not log.exists() or text not in log.read_text():
        time.sleep(0.01)


def wait_for_workers(process):
    while len(found := psutil.Process(process.pid).children()) < 2:
        time.sleep(0.01)
    return found


def test_a_worker_and_the_run_killed_on_the_way_cost_nothing(suite, tmp_path, undisturbed):
    folder = tmp_path / "run"
    process = started(suite, folder)
    workers = wait_for_workers(process)
    workers[0].kill()  # while it starts
    wait_for_results(folder, 1, process)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(workers, timeout=5)[1]  # they end with the run

    def kill():
        wait_for_results(folder, lines_in(folder) + 1)
        psutil.Process().children()[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    done = evaluate(suite, folder)
    killer.join()
    assert done.exit_code == 0, done.output
    assert measured(folder) == measured(undisturbed[0])


def test_what_is_awaited_is_said_before_the_suite_is_read(undisturbed):
    lines = undisturbed[1].splitlines()
    assert lines[0] == "Starting workers (2), which import PyTorch and ART …"
    assert f"{CELLS} cells to measure" in lines[1]
    assert "The first worker is at work: network small" in lines[2]


def test_failed_cells_are_named_and_tried_again(suite, tmp_path, undisturbed):
    folder = tmp_path / "run"
    run = Run.open(undisturbed[0])
    for preparation in (run.folder / "prepared").iterdir():
        if (preparation / "weights.safetensors").exists():
            damaged = folder / "prepared" / preparation.name / "weights.safetensors"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    Run.begin(tmp_path / "new", run.suite, run.cells)
    (tmp_path / "new" / "suite.json").rename(folder / "suite.json")
    failed = evaluate(suite, folder, "--only", "*clean*")
    assert failed.exit_code == 1
    assert "FAILED small · ibm_nairobi · none · clean · seed 0: ArtifactError" in failed.output
    assert "2 cells failed" in failed.output
    assert len(Run.open(folder).failures()) == 2
    assert "Traceback" in (folder / "log.txt").read_text()

    damaged.unlink()
    damaged.parent.rmdir()
    again = evaluate(suite, folder, "--only", "*clean*")
    assert again.exit_code == 0, again.output
    assert f"2 of {CELLS} cells are measured" in again.output
    assert Run.open(folder).failures() == ()
    everything = measured(undisturbed[0])
    assert all(everything[key] == value for key, value in measured(folder).items())


@pytest.mark.slow
@pytest.mark.parametrize("run", range(5))
def test_four_kills_at_random_moments(run, suite, tmp_path, undisturbed):
    """The run, or one of its workers and then the run: twenty kills and more in all."""
    folder = tmp_path / "run"
    chance = random.Random(run)
    for killed in chance.sample(["run", "run", "worker", "worker"], 4):
        process = started(suite, folder)
        for kill in [killed, "run"][killed == "run" :]:
            with suppress(subprocess.TimeoutExpired):
                # Anything from reading the suite to the last cell.
                process.wait(chance.uniform(0.5, 12))
            with suppress(psutil.NoSuchProcess, IndexError):
                whole = psutil.Process(process.pid)
                (whole if kill == "run" else chance.choice(whole.children())).kill()
        output = process.communicate()[0].decode()
        assert "Traceback" not in output
        assert "FAILED" not in output
    done = evaluate(suite, folder)
    assert done.exit_code == 0, done.output
    assert measured(folder) == measured(undisturbed[0])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_engines_give_identical_results(engine, suite, tmp_path, undisturbed):
    done = evaluate(suite, tmp_path / "run", "--engine", engine)
    assert done.exit_code == 0, done.output
    assert measured(tmp_path / "run") == measured(undisturbed[0])


@pytest.mark.slow
def test_a_ray_worker_that_is_killed_costs_nothing(suite, tmp_path, undisturbed):
    folder = tmp_path / "run"

    def kill():
        wait_for_line(folder, "at work")
        for process in psutil.Process().children(recursive=True):
            if process.cmdline()[:1] == ["ray::network small"]:
                process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    done = evaluate(suite, folder, "--engine", "ray")
    killer.join()
    assert "A worker died" in done.output
    assert done.exit_code == 0, done.output
    assert measured(folder) == measured(undisturbed[0])


@pytest.mark.slow
def test_a_running_dask_cluster_of_which_one_worker_dies_and_one_joins(
    suite, tmp_path, undisturbed
):
    from distributed import LocalCluster

    folder = tmp_path / "run"
    # The one that joins has several threads, as Dask's own default is.
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:

        def kill():
            wait_for_results(folder, 2)
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
            cluster.new_spec["options"]["nthreads"] = 3
            cluster.scale(3)

        killer = threading.Thread(target=kill)
        killer.start()
        address = cluster.scheduler_address
        done = evaluate(suite, folder, "--engine", "dask", "--address", address)
        killer.join()
    assert done.exit_code == 0, done.output
    assert measured(folder) == measured(undisturbed[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "dusk"], "Did you mean 'dask'"),
        (["--address", "tcp://nowhere:1"], "add --engine dask or ray"),
        (["--workers", "0"], "at least 1"),
    ],
)
def test_wrong_engines_are_refused(options, message, suite, tmp_path):
    refused = evaluate(suite, tmp_path / "run", *options)
    assert message in str(refused.exception)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(suite, tmp_path):
    refused = evaluate(suite, tmp_path / "run", "--gpu")
    assert refused.exit_code == 1
    assert "has no GPU that torch can use; leave out --gpu" in refused.output


def test_the_schema_is_json():
    shown = CliRunner().invoke(app, ["evaluate", "--schema"])
    assert "defences" in json.loads(shown.output)["properties"]
