"""Ctrl-C and SIGTERM: every long command ends within two seconds, and what was done is kept."""

import json
import signal
import subprocess
import sys
import time

import pytest
from art_fixtures import network

from qnad_art.files.artifacts import read_tensors
from qnad_art.models.weights import save_weights

TUNING = (
    *("--data", "digits", "--epochs", "500", "--batch-size", "100", "--epsilon", "0.1"),
    *("--attack-steps", "1", "--images", "300"),
)
COMMANDS = {
    "train": (
        ("train", "lenet5", "--data", "digits", "--epochs", "500", "--output", "w.safetensors"),
        "w.checkpoint.safetensors",
    ),
    "tune": (
        ("tune", "net.safetensors", *TUNING, "--output", "plan.safetensors"),
        "plan.checkpoint.safetensors",
    ),
    "harden": (
        ("harden", "net.safetensors", *TUNING, "--output", "hard"),
        "hard.checkpoint.safetensors",
    ),
    "quickstart": (("quickstart", "--fast", "--output", "out"), "out/.unfinished-*/*.safetensors"),
}


def started(folder, *arguments):
    code = "from qnad_art.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Background jobs and pytest-xdist ignore Ctrl-C, and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def stop(process, number):
    """Send a signal; the output, once the process has ended in time."""
    process.send_signal(number)
    sent = time.monotonic()
    output = process.communicate(timeout=60)[0]
    assert time.monotonic() - sent < 2
    assert process.returncode == 130, output
    return output


def wait_for(folder, pattern, process):
    while not (found := list(folder.glob(pattern))):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("train", signal.SIGINT),
        ("tune", signal.SIGTERM),
        ("harden", signal.SIGTERM),
        ("quickstart", signal.SIGINT),
        ("quickstart", signal.SIGTERM),
    ],
)
def test_the_last_epoch_is_kept(name, number, tmp_path):
    save_weights(network(), tmp_path / "net.safetensors")
    command, pattern = COMMANDS[name]
    process = started(tmp_path, *command)
    kept = wait_for(tmp_path, pattern, process)
    output = stop(process, number)
    tensors, _ = read_tensors(kept)
    assert tensors
    assert "Stopped. " in output
    if name != "quickstart":
        assert "--resume" in output


@pytest.mark.slow
def test_finished_trials_of_a_search_are_written(tmp_path):
    save_weights(network(), tmp_path / "net.safetensors")
    quick = ("--epochs", "1", "--images", "120", "--trials", "500", "--attack-steps", "1")
    options = ("--search", "--data", "digits", "--epsilon", "0.1", *quick, "--output", "found")
    process = started(tmp_path, "tune", "net.safetensors", *options)
    while not (line := process.stdout.readline()).startswith("trial "):
        assert line, "it ended"
    stop(process, signal.SIGTERM)
    found = json.loads((tmp_path / "found" / "search.json").read_text())
    assert found["trials"]
    assert found["front"]


@pytest.mark.slow
def test_a_stopped_quickstart_goes_on_to_the_same_figures(tmp_path):
    from qnad_art.quickstart.results import QuickstartSettings
    from qnad_art.quickstart.story import run_quickstart

    small = {"epochs": 1, "tuning_epochs": 1, "tuning_images": 60, "test_images": 20}
    settings = QuickstartSettings.fast(epsilons=(0.1, 0.2), pgd_steps=1, **small)
    whole = run_quickstart(settings)

    class Stop(Exception):
        pass

    measured = []

    def stop_at_12(cell):
        measured.append(cell)
        if len(measured) == 12:
            raise Stop

    with pytest.raises(Stop):
        run_quickstart(settings, folder=tmp_path, on_cell=stop_at_12)
    again = []
    resumed = run_quickstart(settings, folder=tmp_path, on_epoch=again.append)
    assert again == []  # trained before
    assert resumed.cells == whole.cells
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_attack_batches():
    import numpy as np
    import psutil
    from art.attacks.evasion import FastGradientMethod
    from art_fixtures import hardened, images

    classifier = hardened(shots=256)
    attack = FastGradientMethod(classifier, eps=0.1, batch_size=16)
    x, y = images().x[:16], images().y[:16]
    memory, process = [], psutil.Process()
    for batch in range(1000):
        attack.generate(x, y)
        if batch >= 200 and batch % 50 == 0:
            memory.append(process.memory_info().rss / 2**20)
    print("RSS in MB:", np.round(memory, 1))
    assert max(memory) - memory[0] < 8  # MB; a leak of one batch of images would be 4 kB × 800
