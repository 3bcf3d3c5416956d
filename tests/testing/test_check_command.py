import pytest
import typer

from qnad_art.plugins.discovery import find_plugins
from qnad_art.testing import check_command, checks_for


def greet(name: str = "you", times: int = 1) -> None:
    """Greet somebody."""
    typer.echo(f"Hello {name}" * times)


def undocumented(name: str) -> None:
    pass


def of_no_form(either: int | str) -> None:
    """Take what nobody can type."""


def with_subcommands(*functions, **settings):
    app = typer.Typer(**settings)
    for function in (greet, *functions):
        app.command()(function)
    return app


@pytest.mark.parametrize(
    "name", [plugin.name for plugin in find_plugins("command") if plugin.built_in]
)
def test_built_in_commands_conform(name):
    check_command(name)


@pytest.mark.parametrize(("name", "check"), checks_for("command"))
def test_functions_and_typer_apps_conform(name, check):
    check(greet)
    check(with_subcommands(help="Greet and part."))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (42, "typer_takes_it: found what is int, not a function"),
        (of_no_form, "typer_takes_it: found what is not a command that Typer takes"),
        (
            undocumented,
            "help_says_what_it_does: found no help of 'undocumented'; expected a docstring",
        ),
        (with_subcommands(), "help_says_what_it_does: found no help of 'command'"),
        (with_subcommands(undocumented, help="Greet."), "no help of 'command undocumented'"),
    ],
)
def test_what_does_not_conform_is_named(command, message):
    with pytest.raises(AssertionError, match=message):
        check_command(command)
