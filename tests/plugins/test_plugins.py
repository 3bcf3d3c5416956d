"""The registry, with distributions made for it, and what broken plugins do: nothing."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points

import fake_plugins
import numpy as np
import pytest
import typer
from fake_plugins import BROKEN, GOOD, Fake
from typer.testing import CliRunner

from qnad_art import __version__
from qnad_art.accuracy import package_versions
from qnad_art.benchmark.run.planner import workload_of
from qnad_art.benchmark.suites.suite import Suite
from qnad_art.cli import app, main
from qnad_art.crosstalk import build_strategy
from qnad_art.datasets.dataset import dataset_names, load_dataset
from qnad_art.device.backends import fake_backends
from qnad_art.device.catalogue import device_names, load_device
from qnad_art.device.profile import DeviceProfile
from qnad_art.engines import build_engine
from qnad_art.errors import DeviceError, PluginError, UnknownNameError
from qnad_art.plugins.contracts import contract_fault
from qnad_art.plugins.discovery import (
    KINDS,
    VARIABLE,
    find_plugin,
    find_plugins,
    load_plugin,
    plugin_names,
    provider,
    without_plugins,
)

EVERYTHING = (
    *BROKEN,
    *(fake_plugins.CRASHING, fake_plugins.LEAVING, fake_plugins.HANGING),
    *(fake_plugins.SLOW, fake_plugins.CONFLICTING, fake_plugins.USURPER),
)


def qnad(*arguments):
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines_with(text, *words):
    return [line for line in text.splitlines() if all(word in line for word in words)]


# --- names ---------------------------------------------------------------------------------------


def test_every_built_in_is_registered_and_is_what_its_kind_must_be():
    for plugin in find_plugins():
        if plugin.built_in:
            assert (plugin.distribution, plugin.version) == ("qnad-art", __version__)
            loaded = plugin.load()
            assert contract_fault(plugin.kind, plugin.name, loaded) is None, plugin
    for kind in KINDS:
        assert plugin_names(kind), kind


def test_the_listed_devices_are_the_snapshots_that_can_run_circuits():
    listed = set(device_names()) - {"ideal"}
    snapshots = fake_backends()
    assert len(listed) > 50
    assert listed <= snapshots.keys()
    for name in snapshots.keys() - listed:
        with pytest.raises(DeviceError):
            DeviceProfile.from_backend(snapshots[name]())


def test_one_plugin_makes_every_device_whose_name_fits(installed):
    code = GOOD.code
    installed(Fake("qnad-lab", "device", "lab_* = qnad_lab:device", code))
    assert load_device("lab_7").name == "lab_7"
    assert provider("device", "lab_7") == "qnad-lab 1.0"
    assert lines_with(qnad("plugins", "show", "lab_7").output, "distribution", "qnad-lab 1.0")
    assert lines_with(qnad("plugins", "list").output, "lab_*", "qnad-lab", "installed")
    assert lines_with(qnad("plugins", "doctor").output, "ok", "device 'lab_*' of qnad-lab 1.0")
    assert "lab_*" in device_names()
    assert lines_with(qnad("devices", "list").output, "lab_*", "unknown")
    with pytest.raises(UnknownNameError, match="lab_"):
        load_device("labs")


def test_a_pattern_takes_no_name_of_another(installed):
    code = GOOD.code
    installed(
        GOOD,
        Fake("aaa-all", "device", "* = aaa_all:device", code),
        Fake("qnad-ibm", "device", "ibm_* = qnad_ibm:device", code),
    )
    assert find_plugin("device", "ibm_nairobi").built_in
    assert find_plugin("device", "ideal").built_in
    assert lines_with(qnad("plugins", "list").output, "ibm_*", "qnad-ibm", "has a built-in")
    assert find_plugin("device", "atlantis").distribution == "qnad-good"
    assert find_plugin("device", "anywhere").distribution == "aaa-all"


def test_listing_imports_nothing(installed):
    installed(Fake("qnad-bomb", "device", "bomb = qnad_bomb:device", "raise SystemExit('boom')"))
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from qnad_art.cli import app\n"
        "print(CliRunner().invoke(app, ['plugins', 'list', '--all']).output)\n"
        "heavy = {'qnad_bomb', 'torch', 'qiskit', 'art', 'numpy'}\n"
        "print('imported:', sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert lines_with(ran.stdout, "device", "bomb", "qnad-bomb", "1.0", "installed")
    assert lines_with(ran.stdout, "attack", "pgd", "qnad-art", "built-in")
    assert lines_with(ran.stdout, "imported: []")


def test_a_plugin_is_imported_when_it_is_asked_for(installed):
    installed(GOOD)
    assert "atlantis" in device_names()
    assert "qnad_good" not in sys.modules
    assert load_device("atlantis").name == "atlantis"
    assert "qnad_good" in sys.modules


def test_names_come_and_go_with_their_distribution(installed, monkeypatch):
    assert "atlantis" not in device_names()
    folder = installed(GOOD)
    assert "atlantis" in device_names()
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    assert "atlantis" not in device_names()
    with pytest.raises(UnknownNameError, match="atlantis"):
        load_device("atlantis")


def test_every_kind_takes_plugins(installed):
    fakes = [
        Fake(f"qnad-{kind.replace(' ', '-')}", kind, f"extra = {target}")
        for kind, target in {
            "device": "qnad_art.device.catalogue:ideal",
            "strategy": "qnad_art.crosstalk.uniform:Uniform",
            "engine": "qnad_art.engines.aer:AerEngine",
            "attack": "qnad_art.benchmark.attacks.catalogue:PGD",
            "data set": "qnad_art.datasets.dataset:digits",
            "sink": "qnad_art.benchmark.report.sinks:Csv",
            "command": "qnad_art.cli.verify:verify",
        }.items()
    ]
    installed(*fakes)
    for fake in fakes:
        assert load_plugin(fake.kind, "extra") is not None
    assert build_strategy("extra", pairs=2).pairs == 2
    assert build_engine("extra", load_device("extra")).shots is None
    assert load_dataset("extra").name == "digits"
    assert "extra" in dataset_names()


# --- clashes and the allow-list ------------------------------------------------------------------


def test_of_two_that_claim_one_name_none_has_it_until_one_is_chosen(installed, monkeypatch):
    (clash,) = (broken for broken in BROKEN if broken.rival)
    installed(clash)
    assert "claimed" not in device_names()
    monkeypatch.setenv(VARIABLE, "QNAD_Rival")
    assert find_plugin("device", "claimed").distribution == "qnad-rival"


def test_one_that_cannot_be_used_anyway_disputes_no_name(installed):
    line = "atlantis = qnad_old:device"
    installed(GOOD, Fake("qnad-old", "device", line, requires=("qnad-art<0.1",)))
    assert load_device("atlantis").name == "atlantis"


def test_cells_and_figures_depend_on_the_plugin_s_version(installed, tmp_path, monkeypatch):
    code = "from qnad_art.benchmark.attacks.catalogue import FGSM as attack"
    installed(Fake("qnad-fast", "attack", "fast = qnad_fast:attack", code))
    suite = Suite.model_validate(
        {
            "name": "s",
            "data": {"name": "digits", "images": 10},
            "models": {"small": {"architecture": "lenet5"}},
            "defences": {"none": "none"},
            "attacks": {"fast": "fast"},
            "eps": [0.1],
            "rungs": ["white-box"],
        }
    )

    def attacked():
        (key,) = (task.key for task in workload_of(suite).tasks if task.attack is not None)
        return key, package_versions()["qnad-fast"]

    key, found = attacked()
    assert found == "1.0"
    shutil.rmtree(tmp_path / "site-packages" / "qnad_fast-1.0.dist-info")
    later = Fake("qnad-fast", "attack", "fast = qnad_fast:attack", code, version="1.1")
    later.install(tmp_path / "other")
    monkeypatch.syspath_prepend(tmp_path / "other")
    assert attacked()[0] != key
    assert attacked()[1] == "1.1"


def test_the_same_name_in_another_kind_is_no_clash(installed):
    installed(Fake("qnad-other", "sink", "atlantis = qnad_art.benchmark.report.sinks:Csv"), GOOD)
    assert find_plugin("sink", "atlantis").distribution == "qnad-other"
    assert find_plugin("device", "atlantis").distribution == "qnad-good"
    shown = qnad("plugins", "show", "atlantis").output
    assert "qnad-other 1.0" in shown
    assert "qnad-good 2.5" in shown


def test_a_built_in_keeps_its_name(installed):
    installed(fake_plugins.USURPER)
    assert find_plugin("device", "ibm_nairobi").built_in
    assert len(load_device("ibm_nairobi").qubits) == 7
    listed = qnad("plugins", "list").output
    assert lines_with(listed, "aaa-usurper", "qnad-art has a built-in device of that name")


@pytest.mark.parametrize(
    ("allowed", "found"),
    [
        (None, {"atlantis", "extra"}),
        ("", set()),
        ("qnad-good", {"atlantis"}),
        ("other, Qnad_Extra", {"extra"}),
        ("qnad.good,qnad-extra", {"atlantis", "extra"}),
    ],
)
def test_the_allow_list_names_distributions(installed, monkeypatch, allowed, found):
    built_in = set(device_names())
    installed(GOOD, Fake("qnad-extra", "device", "extra = qnad_art.device.catalogue:ideal"))
    monkeypatch.delenv(VARIABLE)
    if allowed is not None:
        monkeypatch.setenv(VARIABLE, allowed)
    assert set(device_names()) - built_in == found
    assert set(device_names()) >= built_in


def test_no_plugins_holds_for_one_command(installed, monkeypatch):
    installed(GOOD)
    for before in (None, "qnad-good"):
        monkeypatch.delenv(VARIABLE, raising=False)
        if before is not None:
            monkeypatch.setenv(VARIABLE, before)
        assert lines_with(qnad("devices", "list").output, "atlantis")
        without = qnad("--no-plugins", "devices", "list").output
        assert lines_with(without, "ibm_nairobi")
        assert not lines_with(without, "atlantis")
        assert os.environ.get(VARIABLE) == before
    with pytest.raises(UnknownNameError, match="atlantis"):
        qnad("--no-plugins", "devices", "show", "atlantis")
    assert os.environ.get(VARIABLE) == "qnad-good"


def test_no_plugins_holds_for_processes_started_meanwhile(installed):
    installed(GOOD)
    code = "from qnad_art.device import device_names; print('atlantis' in device_names())"
    ask = [sys.executable, "-c", code]
    with without_plugins():
        assert subprocess.check_output(ask, text=True).strip() == "False"
    assert subprocess.check_output(ask, text=True).strip() == "True"


# --- commands ------------------------------------------------------------------------------------


def fails(monkeypatch, capsys, *arguments):
    """Exit status and error of the command line, as it leaves the process."""
    monkeypatch.setattr(sys, "argv", ["qnad", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code, capsys.readouterr().err


def test_the_commands_of_the_core_are_those_that_it_registers():
    with without_plugins():
        assert sorted(typer.main.get_group(app).commands) == plugin_names("command")


def test_the_help_names_the_commands_of_plugins_without_importing_them(installed):
    bomb = Fake("qnad-bomb", "command", "bomb = qnad_bomb:app", "raise SystemExit('boom')")
    installed(bomb, *fake_plugins.COMMANDS)
    result = qnad("--help")
    assert result.exit_code == 0
    for name in ("bomb", "hello", "tools"):
        assert lines_with(result.output, name, f"From qnad-{name} 1.0.")
    assert lines_with(result.output, "evaluate", "Measure every cell of a suite")
    assert not {"qnad_bomb", "qnad_hello", "qnad_tools"} & set(sys.modules)


def test_a_function_becomes_a_command(installed):
    installed(*fake_plugins.COMMANDS)
    assert qnad("hello", "Ada", "--loud").output == "Hello Ada!\n"
    assert "qnad_tools" not in sys.modules
    assert "Greet somebody." in qnad("hello", "--help").output
    assert qnad("hello").exit_code == 2


def test_an_application_becomes_a_command_with_subcommands(installed, monkeypatch, capsys):
    installed(*fake_plugins.COMMANDS)
    assert qnad("tools", "sharpen").output == "Sharp.\n"
    assert lines_with(qnad("tools", "--help").output, "sharpen", "Sharpen one.")
    assert fails(monkeypatch, capsys, "tools", "break") == (1, "Error: It is broken.\n")


def test_a_broken_command_is_an_error_for_who_calls_it_alone(installed, monkeypatch, capsys):
    raising = Fake("qnad-bomb", "command", "bomb = qnad_bomb:app", "raise SystemExit('boom')")
    installed(raising, *fake_plugins.COMMANDS)
    status, error = fails(monkeypatch, capsys, "bomb")
    assert status == 1
    assert error.startswith("Error: Plugin command 'bomb' of qnad-bomb 1.0 cannot be used: ")
    assert len(error.splitlines()) == 1
    assert qnad("hello", "Ada").output == "Hello Ada\n"
    assert qnad("devices", "list").exit_code == 0


def test_a_command_of_the_core_keeps_its_name(installed):
    installed(Fake("qnad-thief", "command", "verify = qnad_thief:verify", "raise Exception"))
    assert "Compare random compiled products" in qnad("verify", "--help").output
    assert "qnad-thief" not in qnad("--help").output
    listed = qnad("plugins", "list").output
    assert lines_with(listed, "qnad-thief", "qnad-art has a built-in command of that name")


def test_a_command_that_two_plugins_claim_is_nobody_s(installed, monkeypatch, capsys):
    hello, _ = fake_plugins.COMMANDS
    installed(hello, Fake("qnad-rival", "command", "hello = qnad_rival:hello", "raise Exception"))
    assert "hello" not in qnad("--help").output
    status, error = fails(monkeypatch, capsys, "hello", "Ada")
    assert status == 1
    assert "qnad-rival 1.0 claims the name too; uninstall one" in error


def test_no_plugins_hides_commands(installed):
    installed(*fake_plugins.COMMANDS)
    assert "hello" not in qnad("--no-plugins", "--help").output
    assert qnad("--no-plugins", "hello", "Ada").exit_code == 2
    assert "hello" in qnad("--help").output


@pytest.mark.parametrize("name", ["bench", "paper", "results"])
def test_without_the_evaluations_their_commands_say_how_to_get_them(name, monkeypatch, capsys):
    status, error = fails(monkeypatch, capsys, name, "--quick")
    assert status == 2
    assert error.startswith(f"Error: `qnad {name}` comes with qnad-evaluations")
    assert "pip install ./evaluations" in error
    assert len(error.splitlines()) == 1


# --- ART's own module names ----------------------------------------------------------------------


def test_found_by_art_module_names_through_importlib_metadata_alone():
    from art.defences.transformer.transformer import Transformer
    from art.estimators.classification import PyTorchClassifier
    from torch import nn

    (point,) = entry_points(group="art.defences.transformer", name="QNAD")
    (other,) = entry_points(group="art.estimators.classification", name="QuantumExecutedClassifier")
    transformer, estimator = point.load(), other.load()
    assert issubclass(transformer, Transformer)
    assert issubclass(estimator, PyTorchClassifier)

    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    plain = PyTorchClassifier(network, nn.CrossEntropyLoss(), (1, 4, 4), 3, clip_values=(0, 1))
    x = np.random.default_rng(0).random((8, 1, 4, 4), dtype=np.float32)
    defence = transformer(plain, device="ideal", fraction=0.25, pairs=1)
    defence.fit(x, np.arange(8) % 3)
    made = defence(x, plain)
    assert isinstance(made, estimator)
    np.testing.assert_allclose(made.predict(x), plain.predict(x), atol=1e-5)  # without noise


# --- broken plugins ------------------------------------------------------------------------------

_ids = {"ids": lambda broken: broken.asked}


def test_there_are_more_than_twelve():
    assert len(EVERYTHING) > 12


@pytest.mark.parametrize("broken", BROKEN, **_ids)
def test_asking_for_a_broken_plugin_says_which_and_why(installed, broken):
    installed(broken, GOOD)
    kind = broken.plugin.kind
    with pytest.raises(PluginError) as raised:
        load_device(broken.asked) if kind == "device" else load_plugin(kind, broken.asked)
    message = str(raised.value)
    assert re.search(broken.reason, message)
    if broken.plugin.metadata:
        assert f"{kind} {broken.asked!r} of {broken.plugin.name} {broken.plugin.version}" in message
    assert "`qnad plugins doctor`" in message
    assert "\n" not in message
    assert load_device("atlantis").name == "atlantis"
    assert len(load_device("ibm_nairobi").qubits) == 7


def test_a_command_that_needs_a_broken_plugin_ends_with_one_line(installed, monkeypatch, capsys):
    installed(*BROKEN)
    monkeypatch.setattr(sys, "argv", ["qnad", "devices", "show", "import-error"])
    with pytest.raises(SystemExit) as stopped:
        main()
    errors = capsys.readouterr().err
    assert stopped.value.code == 1
    assert errors.startswith("Error: Plugin device 'import-error' of qnad-import-error 1.0 cannot")
    assert len(errors.strip().splitlines()) == 1


def test_a_strategy_that_fails_as_it_plans_is_named(installed):
    code = """
    class Strategy:
        name = "failing"
        def __init__(self, fraction=0.3): pass
        def plan(self, module, x, y): return 1 / 0
    """
    installed(Fake("qnad-failing", "strategy", "failing = qnad_failing:Strategy", code))
    from art.estimators.classification import PyTorchClassifier
    from torch import nn

    from qnad_art import QNAD

    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    plain = PyTorchClassifier(network, nn.CrossEntropyLoss(), (1, 4, 4), 3, clip_values=(0, 1))
    x = np.random.default_rng(0).random((8, 1, 4, 4), dtype=np.float32)
    defence = QNAD(plain, device="ideal", strategy="failing")
    with pytest.raises(PluginError, match=r"'failing' of qnad-failing 1.0 .*ZeroDivisionError"):
        defence.fit(x, np.arange(8) % 3)


def test_all_broken_plugins_together_leave_the_rest_alone(installed):
    with without_plugins():
        built_in = device_names()
    installed(*EVERYTHING, fake_plugins.NO_EQUALS, GOOD)
    listed = qnad("plugins", "list").output
    for each in EVERYTHING:
        fake = each if isinstance(each, Fake) else each.plugin
        if fake.metadata:
            assert lines_with(listed, fake.name), fake
    assert lines_with(listed, "qnad-no-equals", "'a line without the sign' is not of the form")
    assert set(device_names()) > set(built_in)
    assert load_device("atlantis").name == "atlantis"


def test_show_tells_where_a_name_comes_from(installed):
    installed(GOOD, BROKEN[0])
    shown = qnad("plugins", "show", "atlantis", "--kind", "device")
    assert shown.exit_code == 0
    for text in ("qnad_good:device", "qnad-good 2.5", "qnad-art>=0.1,<0.2, numpy>=1", "sunk"):
        assert text in shown.output
    broken = qnad("plugins", "show", "import-error")
    assert broken.exit_code == 1
    assert "ModuleNotFoundError" in broken.output
    with pytest.raises(UnknownNameError, match=r"Did you mean 'atlantis'"):
        qnad("plugins", "show", "atlantic")
    with pytest.raises(UnknownNameError, match="kind of plugin"):
        qnad("plugins", "list", "--kind", "gizmo")


def test_the_doctor_finds_a_good_plugin_well(installed):
    installed(GOOD)
    result = qnad("plugins", "doctor")
    assert result.exit_code == 0, result.output
    assert lines_with(result.output, "ok", "device 'atlantis' of qnad-good 2.5")
    assert "slow" not in result.output
    assert "conflict" not in result.output


def test_the_doctor_survives_what_would_take_this_process_along(installed):
    harmful = (fake_plugins.CRASHING, fake_plugins.LEAVING, fake_plugins.HANGING)
    installed(*harmful, GOOD)
    result = qnad("plugins", "doctor", "--time-limit", "10")
    assert result.exit_code == 1
    for broken in harmful:
        assert re.search(f"BROKEN.*{broken.plugin.name} 1.0\n.*{broken.reason}", result.output)
    assert lines_with(result.output, "ok", "atlantis")
    assert "4 plugins besides the built-in ones, 3 broken." in result.output


def test_the_doctor_remarks_on_slow_imports_and_version_conflicts(installed):
    installed(fake_plugins.SLOW, fake_plugins.CONFLICTING)
    result = qnad("plugins", "doctor")
    assert result.exit_code == 0, result.output  # they work
    seconds = float(re.search(r"slow: its import takes ([\d.]+) s", result.output)[1])
    assert 2.2 <= seconds < 30
    numpy = f"version conflict: it needs numpy<1, but {np.__version__} is installed"
    assert lines_with(result.output, numpy)
    assert lines_with(result.output, "needs nothing-of-that-name, which is not installed")
    assert "rich" not in result.output


@pytest.mark.slow
def test_the_doctor_names_every_fault(installed):
    installed(*BROKEN, fake_plugins.USURPER)
    result = qnad("plugins", "doctor")
    assert result.exit_code == 1
    for broken in BROKEN:
        status = "ok    " if broken.loads else "BROKEN"
        owner = f"{broken.plugin.name} {broken.plugin.version}" if broken.plugin.metadata else "?"
        head = re.escape(f"{status} {broken.plugin.kind} {broken.asked!r} of {owner}")
        reason = "" if broken.loads else f"\n.*{broken.reason.removesuffix('. ')}"
        if not broken.rival:
            assert re.search(f"{head}.*{reason}", result.output), broken
    assert lines_with(result.output, "qnad-rival 0.2 claims the name too")
    assert lines_with(result.output, "qnad-claims 1.0 claims the name too")


@pytest.mark.slow
def test_quickstart_runs_with_all_broken_plugins_installed(installed, tmp_path):
    installed(*EVERYTHING)
    code = (
        "from qnad_art.cli import main\n"
        "from qnad_art.plugins.discovery import find_plugins\n"
        "from qnad_art.quickstart.story import QuickstartSettings\n"
        "small = dict(epsilons=(0.1,), epochs=1, test_images=20, pgd_steps=1, tuning_epochs=1,\n"
        "             tuning_images=128)\n"
        "fast = lambda cls, **changes: cls(**{**small, **changes})\n"
        "QuickstartSettings.fast = classmethod(fast)\n"
        "print(sum(not plugin.built_in for plugin in find_plugins()), 'plugins')\n"
        "main()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "quickstart", "--fast"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert f"{len(EVERYTHING) + 1} plugins" in ran.stdout  # one of them needs a rival
    assert (tmp_path / "qnad-quickstart" / "quickstart.png").is_file()
