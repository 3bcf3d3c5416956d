"""What a user finds after ``import qnad_art``, and what it costs."""

import subprocess
import sys

import pytest

import qnad_art

FOLDERS = [
    *("benchmark", "crosstalk", "datasets", "device", "engines"),
    *("errors", "models", "pretrained", "testing"),
]
HEAVY = ("torch", "art", "qiskit", "numpy", "pydantic")


def python(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_the_package_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys, time; started = time.process_time(); import qnad_art; dir(qnad_art);"
        "print(time.process_time() - started);"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    seconds, imported = python("-c", code).splitlines()
    assert float(seconds) < 0.1
    assert imported == "[]"


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_are_reached_after_importing_the_package_alone(name):
    code = f"import qnad_art; print(qnad_art.{name}.__name__, {name!r} in dir(qnad_art))"
    assert python("-c", code).split() == [f"qnad_art.{name}", "True"]


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("crosstalk", ["Random", "Tuned", "Uniform", "build_strategy"]),
        ("engines", ["AerEngine", "run_on"]),
        ("datasets", ["Dataset", "load_dataset"]),
        ("pretrained", ["load_pretrained"]),
        ("models", ["ModelEntry", "build_model"]),
        ("errors", ["QnadError"]),
        ("benchmark", ["load_suite", "run_suite"]),
    ],
)
def test_names_are_where_a_user_guesses_them(folder, names):
    found = getattr(qnad_art, folder)
    assert set(names) <= set(dir(found))
    assert [getattr(found, name).__name__ for name in names] == names


@pytest.mark.parametrize("name", qnad_art.__all__)
def test_every_public_name_is_there(name):
    assert getattr(qnad_art, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'qnad_art' has no attribute 'nothing'"):
        _ = qnad_art.nothing


def test_python_m_runs_the_command_line():
    assert python("-m", "qnad_art", "--version").strip() == f"qnad-art {qnad_art.__version__}"
