"""A checker for prose: turns of phrase that make readers guess do not come back.

It reads the documents, and the docstrings, comments and messages of the package.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
# These have not been revised yet; everything else has.
UNREVISED = {
    "crosstalk",
    "engines",
    "layers",
}
PACKAGE = ROOT / "qnad_art"
MODULES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not any(path.is_relative_to(PACKAGE / part) for part in UNREVISED)
]

# Pattern, what to write instead, and a sentence that it must find.
RIDDLES = [
    (
        r"(?<!\bthere )\b(?:is|are|was|were|be) no (?!longer\b|more\b)",
        '"is not a" (only "there is no" is idiomatic)',
        "A frog is no tensor.",
    ),
    (
        r"\b(?:when|if|for) (?:some|no)body\b|\bfor who(?:ever)? asks\b",
        "the person or the program that is meant",
        "They are computed when somebody looks at them.",
    ),
    (
        r"\bof everything\b(?= ?[.\"]|$)",
        'the thing itself, as in "seed of everything random"',
        "seed: of everything.",
    ),
    (r"\bleaves? chance\b", '"falls to chance"', "Accuracy leaves chance."),
    (
        r"\bfor good\b(?=[.,;:]| as |$)",
        '"permanently", or until when',
        "It stays for good as it is now.",
    ),
    (r"\bbeside\b", '"besides", "in addition to" or "next to"', "It is stored beside the weights."),
    (
        r"\b(?:shots|steps|gates|pairs|circuits|products|rad|epochs) an? "
        r"(?:product|gate|pair|image|weight|layer|output|step|sum|circuit|trial)\b",
        '"per"',
        "It takes 1,024 shots a product.",
    ),
    (
        r"(?:^|[.;:] )(?!Used)[A-Z][a-z]+ed (?:is|are) (?:the|an?|only)\b",
        "the subject before the verb",
        "Fixed is the main branch.",
    ),
    (
        r"^ {4,}[\w*]+(?:, [\w*]+)*: (?:of|that|in which|on which) ",
        'the thing that the argument is, as in "seed: seed of the split"',
        "    device: that runs it.",
    ),
]


def passages(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and text of each passage of prose in a document or a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = re.sub(r"```.*?```|`[^`\n]*`", lambda m: "\n" * m[0].count("\n"), text, flags=re.S)
        yield from paragraphs(1, text)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield from paragraphs(node.lineno, node.value)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


def paragraphs(line: int, text: str) -> Iterator[tuple[int, str]]:
    """Parts between blank lines and before items, in which a line break counts as a space."""
    for part in re.split(r"(\n(?=\s*\n)|\n(?= *[-*|] | +[\w*, ]+: ))", text):
        yield line + len(part) - len(part.lstrip("\n")), re.sub(r"\s*\n\s*", " ", part.strip("\n"))
        line += part.count("\n")


def riddles(text: str) -> list[str]:
    """What to write instead of each riddle in a passage."""
    return [
        f"{found[0].strip()!r}: write {instead}"
        for pattern, instead, _ in RIDDLES
        for found in re.finditer(pattern, text, flags=re.IGNORECASE if "A-Z" not in pattern else 0)
    ]


@pytest.mark.parametrize(("pattern", "instead", "example"), RIDDLES)
def test_every_riddle_is_found_in_its_example(pattern, instead, example):
    assert any(instead in found for found in riddles(example))


@pytest.mark.parametrize(
    "plain",
    [
        "There is no release yet.",
        "The plan is no longer valid.",
        "It takes 1,024 shots per product.",
        "    seed: seed of the split.",
        "The search for good settings.",
    ],
)
def test_plain_sentences_pass(plain):
    assert riddles(plain) == []


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, *MODULES], ids=lambda path: str(path.relative_to(ROOT))
)
def test_prose_has_no_riddles(path):
    found = [f"{path}:{line}: {fault}" for line, text in passages(path) for fault in riddles(text)]
    assert not found, "\n".join(found)
