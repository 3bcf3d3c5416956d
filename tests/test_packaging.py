"""What PyPI, GitHub and citation tools read agrees with what the package is."""

import re
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGE = metadata("qnad-art")  # of the installed package: install again after changes
RELATIVE_LINK = r"\]\((?!https?:|#)([^)#]+)"
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def read_yaml(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_ci_classifiers_and_requirement_name_the_same_pythons():
    ci = read_yaml(".github/workflows/ci.yml")["jobs"]["checks"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: 3."
    classifiers = [c for c in PACKAGE.get_all("Classifier") if c.startswith(prefix)]
    minors = [int(c.removeprefix(prefix)) for c in classifiers]
    assert ci == [f"3.{minor}" for minor in minors]
    required = {f">=3.{min(minors)}", f"<3.{max(minors) + 1}"}
    assert set(PACKAGE["Requires-Python"].split(",")) == required


def test_ci_runs_what_contributors_run():
    steps = read_yaml(".github/workflows/ci.yml")["jobs"]["checks"]["steps"]
    assert ".ci/run" in [step.get("run") for step in steps]
    commands = (ROOT / ".ci/run").read_text(encoding="utf-8")
    hooks = read_yaml(".pre-commit-config.yaml")["repos"][0]["hooks"]
    assert {hook["name"] for hook in hooks} == {"ruff check", "ruff format", "mypy", "lint-imports"}
    for hook in hooks:
        assert re.search(rf"^{hook['name']}\b", commands, flags=re.M)


def test_the_description_on_pypi_has_no_links_into_the_repository():
    description = PACKAGE.get_payload() or PACKAGE["Description"]
    assert "`SECURITY.md` in the repository" in description
    assert re.findall(RELATIVE_LINK, description) == []


def test_the_citation_has_the_fields_of_its_format():
    citation = read_yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "Apache-2.0"
    assert citation["message"]
    assert citation["title"]
    assert [author["name"] for author in citation["authors"]] == [PACKAGE["Author"]]
    (paper,) = citation["references"]
    assert paper["type"] == "conference-paper"
    assert f"https://doi.org/{paper['doi']}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"https://doi.org/{paper['doi']}" in PACKAGE["Project-URL"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_in_documents_lead_to_files(document):
    text = document.read_text(encoding="utf-8")
    named = {document.parent / link for link in re.findall(RELATIVE_LINK, text)}
    if document.name != "CHANGELOG.md":  # which tells of files that are gone
        named |= {
            ROOT / path for path in re.findall(r"`((?:qnad_art|docs|tests|plugins)/[^` ]*)`", text)
        }
    assert [str(path) for path in sorted(named) if not path.exists()] == []


def test_the_map_of_the_architecture_names_every_folder_and_module():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*) \|", text, flags=re.M)
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row)}
    there = {
        path.name
        for path in (ROOT / "qnad_art").iterdir()
        if not path.name.startswith(("_", ".")) and path.name != "py.typed"
    }
    assert there - named == set()
    assert [name for name in named if not (ROOT / "qnad_art" / name).exists()] == []
