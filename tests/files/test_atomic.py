"""Saving under kill -9 and on a full disk: what is there is whole, the earlier or the later one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from art_fixtures import hardened
from benchmark_results import a_suite

from qnad_art import QuantumExecutedClassifier
from qnad_art.benchmark.run.folder import Run
from qnad_art.benchmark.suites.suite import Suite
from qnad_art.device.profile import DeviceProfile
from qnad_art.files.atomic import read_json
from qnad_art.placement.plan import CrosstalkPlan

SAVE = """
import sys
from pathlib import Path
from qnad_art import QuantumExecutedClassifier
from qnad_art.files.atomic import write_json

folder = Path(sys.argv[1])
two = [QuantumExecutedClassifier.load(path) for path in sys.argv[2:]]
print("ready", flush=True)
for number in range(10**9):
    one = two[number % 2]
    one.save("net", str(folder))
    one.plan.save(folder / "plan")
    one.module.device_profile.save(folder / "device.json")
    write_json(folder / "numbers.json", [number] * 5000)
"""
DEVICES = {"ideal", "ibm_nairobi"}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folders of two saved classifiers, of nairobi and of the ideal device."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("ibm_nairobi", "ideal"):
        hardened(device=name).save(name, str(folder))
    return folder / "ibm_nairobi", folder / "ideal"


@pytest.fixture
def ideal(two):
    return QuantumExecutedClassifier.load(two[1])


def child(code, *arguments, **options):
    """A Python process that can import what tests can."""
    folders = [str(Path(__file__).parents[1]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    # Coverage would want to write as well: to the full disk, or when it is killed.
    environment.pop("COVERAGE_PROCESS_CONFIG", None)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes, **options)


def check(folder):
    """Everything that was saved is whole."""
    assert QuantumExecutedClassifier.load(folder / "net").module.device_profile.name in DEVICES
    assert CrosstalkPlan.load(folder / "plan").device in DEVICES
    assert DeviceProfile.load(folder / "device.json").name in DEVICES
    assert len(set(read_json(folder / "numbers.json"))) == 1


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, two, ideal):
    rng = random.Random(0)
    for _ in range(3):
        process = child(SAVE, tmp_path, *two)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        while not (tmp_path / "numbers.json").exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.3))
        process.kill()
        process.communicate()
        check(tmp_path)
    ideal.save("net", str(tmp_path))  # it can be replaced still
    assert not list(tmp_path.glob(".net.old.*"))


def test_killed_before_the_earlier_folder_is_removed(tmp_path, two, ideal):
    code = SAVE.replace(
        "print(",
        "import os, shutil, signal\n"
        "shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "print(",
    )
    process = child(code, tmp_path, *two)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".net.old.*"))) == 1
    ideal.save("net", str(tmp_path))
    later = QuantumExecutedClassifier.load(tmp_path / "net")
    assert later.module.device_profile.name == "ideal"
    assert not list(tmp_path.glob(".net.old.*"))


def test_killed_between_the_two_steps_of_replacing_a_folder(tmp_path, two, ideal):
    code = SAVE.replace(
        "print(",
        "import os, signal\n"
        "real = os.replace\n"
        "def replace(source, target):\n"
        "    real(source, target)\n"
        "    if Path(target).name == 'old':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.replace = replace\n"
        "print(",
    )
    process = child(code, tmp_path, *two)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "net").exists()
    earlier = QuantumExecutedClassifier.load(tmp_path / "net")
    assert earlier.module.device_profile.name == "ibm_nairobi"
    ideal.save("net", str(tmp_path))
    later = QuantumExecutedClassifier.load(tmp_path / "net")
    assert later.module.device_profile.name == "ideal"
    assert not list(tmp_path.glob(".net.old.*"))


FILL = """
import resource, sys
from pathlib import Path
from benchmark_results import a_suite
from qnad_art import QuantumExecutedClassifier
from qnad_art.benchmark.run.folder import Run

folder, two = Path(sys.argv[1]), [QuantumExecutedClassifier.load(path) for path in sys.argv[3:]]
run = Run.open(folder / "run")
for classifier, limit in ((two[0], None), (two[1], int(sys.argv[2]))):
    if limit is not None:  # from here on no file can be longer: writing fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for save in (
        lambda: classifier.save("net", str(folder)),
        lambda: classifier.plan.save(folder / "plan"),
        lambda: classifier.module.device_profile.save(folder / "device.json"),
        lambda: run.append(a_suite()[limit is not None]),
    ):
        try:
            save()
        except OSError as error:
            print(type(error).__name__)
"""


@pytest.mark.parametrize("limit", [0, 2000])
def test_a_disk_that_is_full(limit, tmp_path, two):
    suite = {"name": "t", "data": "digits", "models": ["lenet5"], "defences": ["none"]}
    results = a_suite()[:2]
    cells = {result.key: result.cell for result in results}
    run = Run.begin(tmp_path / "run", Suite.model_validate(suite), cells)
    process = child(FILL, tmp_path, limit, *two)
    output, errors = process.communicate()
    assert output.splitlines().count("OSError") >= 2, errors
    assert QuantumExecutedClassifier.load(tmp_path / "net").module.device_profile.name == (
        "ibm_nairobi"
    )
    assert CrosstalkPlan.load(tmp_path / "plan").device == "ibm_nairobi"
    assert DeviceProfile.load(tmp_path / "device.json").name in DEVICES
    assert results[0] in run.results()
    with warnings.catch_warnings():  # half a result is cut off, and the next one is whole again
        warnings.simplefilter("ignore")
        run.repair()
    run.append(results[1])
    assert run.results() == results
    assert {entry.name for entry in tmp_path.iterdir()} == {"net", "plan", "device.json", "run"}


def test_a_full_disk_is_one_line_in_a_command(tmp_path):
    code = (
        "import resource, signal, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "from qnad_art.cli import main\n"
        "sys.argv = ['qnad', 'devices', 'export', 'ideal', sys.argv[1]]\n"
        "main()\n"
    )
    process = child(code, tmp_path / "device.json")
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith("Error: ")
    assert "Traceback" not in errors
    assert json.dumps(list(tmp_path.iterdir())) == "[]"
