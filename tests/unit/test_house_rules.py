"""The house rules that no linter knows (CONTRIBUTING.md)."""

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "src").rglob("*.py"))

LONGEST_FUNCTION = 60
MEDIAN_FUNCTION = 10
LONGEST_MODULE = 600

IGNORED = {".venv", "node_modules", "__pycache__", "build", "dist", "hookline-data", "data"}
TEXTS = set(" .cfg .css .html .js .json .md .py .sh .sql .toml .txt .yaml .yml".split(" "))

# Written in parts, so that this file may keep its own rule.
REGISTRIES = [
    r"pypi\." + "org",
    r"python" + r"hosted\." + "org",
    r"registry\." + r"npmjs",
    r"(?:index|static)\.crates\." + "io",
    r"proxy\." + r"golang",
    r"repo1?\." + r"maven",
    r"deb\." + r"debian\." + "org",
]
MACHINES = [r"/work/" + r"(main|shared)\b", r"/root/" + r"\.", r"\.lib" + "rary/"]
MAKERS = [r"\bg" + r"pt\b", r"\bl" + r"lms?\b", r"\bco" + r"pilot\b", r"\blanguage mod" + "el"]


def functions(module: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{module.relative_to(ROOT)}:{node.lineno} {node.name}", _code_lines(node)


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its decorators and docstring."""
    assert node.end_lineno
    lines = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def committed_texts() -> Iterator[Path]:
    """Every text of the project: what is there, less what .gitignore keeps out."""
    for folder in (ROOT, *(path for path in ROOT.iterdir() if path.is_dir() and wanted(path))):
        for path in sorted(folder.rglob("*") if folder != ROOT else folder.glob("*")):
            inside = path.relative_to(ROOT).parts
            if path.is_file() and path.suffix in TEXTS and not IGNORED.intersection(inside):
                yield path


def wanted(folder: Path) -> bool:
    return folder.name == ".ci" or (not folder.name.startswith(".") and folder.name not in IGNORED)


def test_no_function_is_long():
    found = [one for module in MODULES for one in functions(module)]
    assert [one for one in found if one[1] > LONGEST_FUNCTION] == []


def test_most_functions_are_short():
    lines = [lines for module in MODULES for _, lines in functions(module)]
    assert statistics.median(lines) < MEDIAN_FUNCTION


def test_no_module_is_long():
    lengths = {module: len(module.read_text("utf-8").splitlines()) for module in MODULES}
    assert {str(module): lines for module, lines in lengths.items() if lines >= LONGEST_MODULE} == {}


@pytest.mark.parametrize("words", [REGISTRIES, MACHINES, MAKERS], ids=["registries", "machines", "makers"])
def test_the_text_does_not_name(words):
    pattern = re.compile("|".join(words), re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in committed_texts()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def unexplained_exceptions(module: Path) -> Iterator[str]:
    """A bare ignore hides everything on its line; one with a rule needs a reason behind it, or on the line before."""
    bare = re.compile(r"#\s*(type:\s*ignore|noqa(?!: ?[A-Z])|pyright:\s*ignore(?!\[))")
    silent = re.compile(r"#\s*(noqa: ?[A-Z0-9, ]+|pyright: ignore\[\w+(, ?\w+)*\])\s*$")
    before = ""
    for number, line in enumerate(module.read_text("utf-8").splitlines(), 1):
        if bare.search(line) or (silent.search(line) and "#" not in before):
            yield f"{module.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        before = line


def test_type_and_lint_exceptions_say_what_they_except_and_why():
    assert [one for module in MODULES for one in unexplained_exceptions(module)] == []
