"""The distributions in plugins/, and evaluations: built, installed afresh, used, uninstalled."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from qnad_art.plugins.discovery import KINDS, VARIABLE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PLUGINS = Path(__file__).parents[2] / "plugins"
FOLDERS = [
    *sorted(path.parent for path in PLUGINS.glob("*/pyproject.toml")),
    PLUGINS.parent / "evaluations",
]

LIST = """
from qnad_art.plugins.discovery import find_plugins
for plugin in find_plugins():
    if not plugin.built_in:
        print(plugin.kind, plugin.name, plugin.fault, sep="|")
"""

HARDEN = """
import numpy as np
from art.estimators.classification import PyTorchClassifier
from torch import nn
from qnad_art import QNAD

network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
plain = PyTorchClassifier(network, nn.CrossEntropyLoss(), (1, 4, 4), 3, clip_values=(0, 1))
x = np.random.default_rng(0).random((8, 1, 4, 4), dtype=np.float32)
defence = QNAD(plain, strategy={name!r}, fraction=0.25, pairs=2)
defence.fit(x, np.arange(8) % 3)
plan = defence(x, plain).plan
print(plan.strategy, plan.injected, plan.settings["pairs"])
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with its own pip."""

    python: Path

    def run(self, *arguments: str) -> str:
        ran = subprocess.run(
            [str(self.python), *arguments],
            capture_output=True,
            text=True,
            cwd=self.python.parent,  # not where the packages' sources are
            env={name: value for name, value in os.environ.items() if name != VARIABLE},
            check=False,
        )
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def install(self, folder: Path) -> None:
        offline = ("--no-index", "--no-deps", "--no-build-isolation")
        self.run("-m", "pip", "install", "--quiet", *offline, str(folder))

    def uninstall(self, distribution: str) -> None:
        self.run("-m", "pip", "uninstall", "--quiet", "--yes", distribution)

    def plugins(self) -> set[tuple[str, ...]]:
        """Kind, name and fault of all that is registered besides the built-ins."""
        return {tuple(line.split("|")) for line in self.run("-c", LIST).splitlines()}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """An environment that sees what this one has installed, but for the plugins."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "venv", with_pip=True, symlinks=os.name != "nt")
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    environment = Environment(python)
    site = environment.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    seen = _without_plugins(folder / "seen")
    Path(site, "seen.pth").write_text("\n".join(map(str, seen)))
    return environment


def _without_plugins(links: Path) -> list[Path]:
    """Python's path as it is here, its folders of packages replaced by one of links."""
    links.mkdir()
    standard = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    path = [Path(entry) for entry in sys.path if entry and Path(entry).is_dir()]
    folders = [each for each in path if any(each.glob("*.dist-info"))]
    plugins = {re.sub(r"[-_.]+", "_", _project(folder)["name"]).lower() for folder in FOLDERS}
    for entry in (entry for folder in folders for entry in folder.iterdir()):
        owner, _, rest = entry.name.partition("-")
        there = (links / entry.name).exists() or (
            rest.endswith(".dist-info") and owner.lower() in plugins
        )
        if not there:
            (links / entry.name).symlink_to(entry)
    others = [each for each in path if each not in folders and each not in standard]
    return [*others, links]


def _project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def _registered(folder: Path) -> set[tuple[str, ...]]:
    kinds = {group: kind for kind, group in KINDS.items()}
    return {
        (kinds[group], name, "None")
        for group, names in _project(folder)["entry-points"].items()
        if group in kinds
        for name in names
    }


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_names_appear_on_install_and_vanish_on_uninstall(fresh, folder):
    assert fresh.plugins() == set()  # with the core alone, no plugin code is found
    fresh.install(folder)
    try:
        assert fresh.plugins() == _registered(folder) != set()
    finally:
        fresh.uninstall(_project(folder)["name"])
    assert fresh.plugins() == set()


@pytest.mark.slow
def test_the_template_is_used_by_name(fresh):
    fresh.install(PLUGINS / "template")
    try:
        # A quarter of the 48 weights.
        assert fresh.run("-c", HARDEN.format(name="heaviest")) == "heaviest 12 2\n"
    finally:
        fresh.uninstall("qnad-template")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the guide's commands are those of a POSIX shell")
def test_the_guide_makes_a_strategy_of_another_name(fresh, tmp_path):
    """Step 1 of the README's five minutes, as printed."""
    guide = (PLUGINS / "template" / "README.md").read_text()
    commands = next(block for block in re.findall(r"```sh\n(.*?)```", guide, re.S) if "cp" in block)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PLUGINS / "template", tmp_path / "plugins" / "template", ignore=ignored)
    subprocess.run(["bash", "-ec", commands], cwd=tmp_path, check=True)
    fresh.install(tmp_path / "qnad-light")
    try:
        assert fresh.plugins() == {("strategy", "lightest", "None")}
        assert fresh.run("-c", HARDEN.format(name="lightest")) == "lightest 12 2\n"
        tests = tmp_path / "qnad-light" / "tests"
        fresh.run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests))
    finally:
        fresh.uninstall("qnad-light")
