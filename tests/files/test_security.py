"""What files from others cannot do, and what leaves this machine: only what was asked for."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import qnad_art
from qnad_art.benchmark.defences.by_class import class_names
from qnad_art.benchmark.suites.suite import Suite, load_suite
from qnad_art.cli.screen import Console, printable
from qnad_art.errors import QnadError

SUITE = {"name": "s", "data": "digits", "models": ["lenet5"], "attacks": ["fgsm"], "eps": [0.1]}
NAMES = (
    "os.system",
    "builtins.eval",
    "pickle:loads",
    "antigravity:fly",
    "./wave.py:open",
    "torch.load",
    "art.defences.",
    "art.defences.os",
    "art.defences...os",
    "art.defences/../os",
    "art.defences.trainer.abc",
    "art.defences.trainer.Trainer",
    "art.defences.trainer.trainer.logger",
    "art.defences.trainer.AdversarialTrainer.__init__",
    "art.defences.preprocessor.__builtins__",
    "art.defences.preprocessor.preprocessor",
    "art.defences.preprocessor.feature_squeezing.FeatureSqueezing",
    "art.defences.detector.evasion.BinaryInputDetector",
    "art.defences.transformer.poisoning.NeuralCleanse",
)


class TestSuites:
    @pytest.mark.parametrize("part", ["defences", "attacks", "models"])
    def test_names_lead_to_nothing_but_what_is_registered(self, part):
        for name in NAMES:
            suite = {"defences": ["none"], **SUITE, part: {"x": name}}
            before = set(sys.modules)
            with pytest.raises(ValueError, match=r"nknown|no such|not|never runs code"):
                Suite.model_validate(suite)
            brought = {module for module in set(sys.modules) - before if "." not in module}
            assert not brought, name

    def test_by_their_dotted_names_only_what_art_exports_as_defences(self):
        from art.defences.preprocessor.preprocessor import Preprocessor
        from art.defences.trainer.trainer import Trainer

        for name in class_names():
            module, _, short = name.rpartition(".")
            found = getattr(sys.modules[module], short)
            assert issubclass(found, (Preprocessor, Trainer))
            assert found.__module__.startswith("art.defences.")

    def test_a_file_cannot_name_a_class_or_call_a_function(self, tmp_path):
        path, touched = tmp_path / "suite.yaml", tmp_path / "touched"
        for text in (
            f"name: !!python/object/apply:os.system ['touch {touched}']",
            f"name: !!python/object/new:pathlib.Path [{touched}]",
            "name: !<tag:yaml.org,2002:python/name:os.system> x",
            "!!python/module:os x",
        ):
            path.write_text(text)
            with pytest.raises(QnadError):
                load_suite(path)
        assert not touched.exists()


class TestScreens:
    EVIL = "\x1b]0;owned\x07\x1b[2J[red]x[/red] [/] :skull: \u202e\udc80\r\x9b2J"

    def test_names_are_text(self):
        from rich.table import Table

        shown = io.StringIO()
        console = Console(file=shown, force_terminal=True, width=200)
        console.print(f"a {self.EVIL} b")
        table = Table(title=self.EVIL)
        table.add_column(self.EVIL)
        table.add_row(self.EVIL)
        console.print(table)
        text = shown.getvalue()
        for sequence in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\u202e", "\r"):
            assert sequence not in text
        assert text.count("[red]x[/red] [/] :skull:") == 4

    def test_ordinary_text_stays_as_it_is(self):
        text = "ε 0.1 · µs ± ∞ 中文\n\tgüt"
        assert printable(text) == text

    def test_errors_are_text(self, tmp_path):
        code = "from qnad_art.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "describe", "\x1b]0;owned\x07[/]"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("Error: \\x1b]0;owned\\x07[/] ")


HOOK = """
import json, os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        place = arguments[0] if event.startswith("socket.get") else arguments[1]
        local = isinstance(place, (str, bytes)) and event.startswith("socket.c")  # a UNIX socket
        host = place[0] if isinstance(place, tuple) else place
        if not local and host not in ("127.0.0.1", "::1", "localhost", None, os.uname().nodename):
            with open(sys.argv[-1], "a") as file:
                file.write(f"{event} {place}\\n")
            raise OSError(f"no network here: {event} {place}")

sys.addaudithook(watch)
"""


@pytest.fixture
def watched(tmp_path):
    """Function: run code where every way to the network is refused and written down."""

    def run(code, *arguments):
        seen = tmp_path / "seen.txt"
        command = [sys.executable, "-c", HOOK + code, *map(str, arguments), str(seen)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        return done, seen.read_text() if seen.exists() else ""

    return run


def test_the_watch_sees_what_goes_out(watched):
    code = "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)"
    done, seen = watched(code)
    assert done.returncode == 1
    assert "192.0.2.1" in seen


@pytest.mark.slow
def test_nothing_reaches_the_network(watched, tmp_path):
    """Devices, data, training, circuits, crosstalk, attacks, saving and the shipped network."""
    code = (
        "from pathlib import Path\n"
        "from qnad_art.quickstart import QuickstartSettings, run_quickstart, save_quickstart\n"
        "from qnad_art.pretrained import load_pretrained\n"
        "small = dict(epochs=1, tuning_epochs=1, tuning_images=60, test_images=20)\n"
        "settings = QuickstartSettings.fast(epsilons=(0.1,), pgd_steps=1, **small)\n"
        "save_quickstart(run_quickstart(settings), Path('out'))\n"
        "hardened = load_pretrained().hardened\n"
        "hardened.save('net')\n"
        "import art.attacks.evasion, optuna, qnad_art.search.study, qnad_art.benchmark.run.runner\n"
        "print(len(list(Path('out').iterdir())))\n"
    )
    done, seen = watched(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "2"
    assert seen == ""


def test_no_module_reads_pickles():
    """What unpickles, by name, is nowhere on our own paths."""
    folder = Path(qnad_art.__file__).parent
    readers = ("pickle.load", "torch.load(", "joblib.load", "allow_pickle=True", "yaml.load(")
    readers += ("read_pickle", "dill", "marshal.load", "shelve.open", "eval(compile", "exec(")
    for path in folder.rglob("*.py"):
        text = path.read_text()
        assert not [name for name in readers if name in text], path


@pytest.mark.slow
def test_tokens_are_in_nothing_that_is_written(tmp_path):
    """A token in the environment is in no output, log, checkpoint or result of a command."""
    token = "tok-5f0c1e7a9d3b"
    names = ("QISKIT_IBM_TOKEN", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN")
    environment = {**os.environ, **dict.fromkeys(names, token)}
    suite = {**SUITE, "defences": ["none"], "audit": False, "rungs": ["white-box"]}
    suite["data"] = {"name": "digits", "images": 10, "train_images": 60}
    suite["models"] = {"m": {"architecture": "lenet5", "epochs": 1}}
    (tmp_path / "s.yaml").write_text(json.dumps(suite))
    code = "from qnad_art.cli import main; main()"
    for arguments in (
        ("evaluate", "s.yaml", "--output", "run", "--workers", "1", "--sink", "csv"),
        ("report", "run", "--format", "html,csv"),
        ("evaluate", "missing.yaml"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            capture_output=True,
            cwd=tmp_path,
        )
        assert done.returncode == (1 if "missing.yaml" in arguments else 0), done.stderr
        assert token.encode() not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if token.encode() in path.read_bytes()]
