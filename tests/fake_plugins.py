"""Distributions as pip leaves them, made in a folder: a good plugin, and every broken one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from qnad_art.plugins.discovery import KINDS


@dataclass(frozen=True)
class Fake:
    """A distribution with one module, its name with underscores, and one entry point.

    Args:
        name: of the distribution.
        kind, line: of the entry point.
        code: of the module; ``None``: there is none.
        version, requires: in its metadata.
        metadata: whether it has any.
    """

    name: str
    kind: str
    line: str
    code: str | None = ""
    version: str = "1.0"
    requires: tuple[str, ...] = ()
    metadata: bool = True

    def install(self, folder: Path) -> list[str]:
        """Write it; its name as the registry says it, in a list."""
        module = self.name.replace("-", "_")
        info = folder / f"{module}-{self.version}.dist-info"
        info.mkdir(parents=True)
        (info / "entry_points.txt").write_text(f"[{KINDS[self.kind]}]\n{self.line}\n")
        if self.metadata:
            fields = {"Metadata-Version": "2.1", "Name": self.name, "Version": self.version}
            lines = [*fields.items(), *(("Requires-Dist", line) for line in self.requires)]
            (info / "METADATA").write_text("".join(f"{key}: {value}\n" for key, value in lines))
        if self.code is not None:
            (folder / f"{module}.py").write_text(dedent(self.code))
        return [self.name if self.metadata else "?"]


GOOD = Fake(
    "qnad-good",
    "device",
    "atlantis = qnad_good:device",
    """
    from qnad_art.device.profile import DeviceProfile

    def device(name):
        "Noiseless and sunk."
        return DeviceProfile.ideal().model_copy(update={"name": name})
    """,
    version="2.5",
    requires=("qnad-art>=0.1,<0.2", "numpy>=1"),
)


COMMANDS = (
    Fake(
        "qnad-hello",
        "command",
        "hello = qnad_hello:hello",
        """
        def hello(name: str, loud: bool = False):
            "Greet somebody."
            print(f"Hello {name}{'!' * loud}")
        """,
    ),
    Fake(
        "qnad-tools",
        "command",
        "tools = qnad_tools:app",
        """
        import typer
        from qnad_art.errors import InvalidInputError

        app = typer.Typer(help="Tools.")

        @app.command()
        def sharpen():
            "Sharpen one."
            print("Sharp.")

        @app.command("break")
        def break_it():
            "Break one."
            raise InvalidInputError("It is broken.")
        """,
    ),
)
"""A function, and an application with subcommands."""


@dataclass(frozen=True)
class Broken:
    """A broken plugin.

    Args:
        plugin: it.
        asked: the name that users ask for.
        reason: the error says, as a regular expression.
        loads: whether loading it shows nothing, so that only its use fails.
        rival: another distribution that is needed to break it.
    """

    plugin: Fake
    asked: str
    reason: str
    loads: bool = False
    rival: Fake | None = None

    def install(self, folder: Path) -> list[str]:
        return [n for each in (self.plugin, self.rival) if each for n in each.install(folder)]


def _device(name: str, code: str | None, **metadata: object) -> Fake:
    """The plugin ``qnad-NAME`` with the device ``NAME``."""
    target = f"qnad_{name.replace('-', '_')}:device"
    return Fake(f"qnad-{name}", "device", f"{name} = {target}", code, **metadata)  # type: ignore[arg-type]


def _broken(name: str, code: str | None, reason: str, **settings: object) -> Broken:
    loads = bool(settings.pop("loads", False))
    return Broken(_device(name, code, **settings), name, reason, loads)


def _of_kind(kind: str, name: str, code: str, reason: str) -> Broken:
    target = f"qnad_{name.replace('-', '_')}:IT"
    return Broken(Fake(f"qnad-{name}", kind, f"{name} = {target}", code), name, reason)


_FINE = "def device(name): pass"

BROKEN = (
    # As it is imported.
    _broken("import-error", "import nothing_of_that_name", "ModuleNotFoundError: No module named"),
    _broken("no-module", None, "No module named 'qnad_no_module'"),
    _broken("syntax-error", "def device(:", "SyntaxError: invalid syntax"),
    _broken("raising", "raise ValueError('first line\\nsecond')", "ValueError: first line. "),
    _broken("missing-attribute", "devise = 1", "AttributeError: .* no attribute 'device'"),
    _broken("exit", "import sys; sys.exit(0)", "SystemExit: 0"),
    _broken("recursion", "def f(): f()\nf()", "RecursionError: maximum recursion depth"),
    # What it is.
    _broken("wrong-type", "device = 42", "qnad_wrong_type:device is int, not a function"),
    _of_kind("strategy", "function-strategy", "def IT(module, x, y): pass", "not a class with a"),
    _of_kind("command", "class-command", "class IT: pass", "the class IT, not a function or an"),
    _of_kind(
        "command",
        "untypable",
        "def IT(either: int | str): pass",
        "not a command that Typer takes: AssertionError",
    ),
    _of_kind("attack", "class-attack", "class IT: pass", "the class IT, not an instance of qnad"),
    _of_kind(
        "sink",
        "abstract-sink",
        "from qnad_art.benchmark.run.sinks import Sink\nclass IT(Sink): pass",
        "does not define close",
    ),
    _of_kind(
        "defence",
        "misnamed",
        """
        from qnad_art.benchmark.defences.base import Defence
        class IT(Defence):
            name = "otherwise"
            def apply(self, classifier, work, folder): return classifier
        """,
        "calls itself 'otherwise', but is registered as 'misnamed'",
    ),
    # As it is used.
    _broken("raises", "def device(name): return {}[name]", "KeyError: 'raises'", loads=True),
    _broken("leaves", "def device(name): raise SystemExit(3)", "SystemExit: 3", loads=True),
    _broken("gives-a-dict", "def device(name): return {}", "it returned a dict, not", loads=True),
    _broken("no-argument", "def device(): pass", "TypeError: .*0 positional", loads=True),
    # What its metadata say.
    _broken("bad-version", _FINE, "its version 'one' is not a version", version="one"),
    _broken("no-metadata", _FINE, "its metadata in .* cannot be read", metadata=False),
    _broken(
        "other-core",
        _FINE,
        "it needs qnad-art >=7, but .* is installed",
        requires=("numpy", "qnad_ART>=7"),
    ),
    _broken("bad-requirement", _FINE, "requirement 'a lot' cannot be read", requires=("a lot",)),
    Broken(
        Fake("qnad-malformed", "device", "malformed = not a target", _FINE),
        "malformed",
        "its entry point 'malformed = not a target' is not of the form",
    ),
    Broken(
        Fake("qnad-claims", "device", "claimed = qnad_claims:device", _FINE),
        "claimed",
        "of qnad-claims 1.0 .*qnad-rival 0.2 claims the name too; uninstall one",
        rival=Fake("qnad-rival", "device", "claimed = qnad_rival:device", _FINE, version="0.2"),
    ),
)
"""Those that raise when they are used; those below are harmful to whoever loads them."""

USURPER = Fake("aaa-usurper", "device", "ibm_nairobi = aaa_usurper:device", "raise Exception")
"""It claims a built-in's name."""

NO_EQUALS = Fake("qnad-no-equals", "device", "a line without the sign", _FINE)
"""importlib.metadata.entry_points() fails as a whole where it lies, and with it pydantic and pip,
which therefore never installs it."""

CRASHING = _broken("crashing", "import os; os.abort()", r"it ends the interpreter \(SIGABRT\)")
LEAVING = _broken("leaving", "import os; os._exit(0)", r"ends the interpreter \(exit status 0\)")
HANGING = _broken("hanging", "import time; time.sleep(3600)", "it did not load within")
SLOW = _device("slow", "import time; time.sleep(2.2)\ndef device(name): pass")
CONFLICTING = _device("conflicting", _FINE, requires=("numpy<1", "nothing-of-that-name", "rich"))
