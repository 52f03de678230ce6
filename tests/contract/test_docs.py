"""The pages of the documentation lead to each other."""

import ast
import builtins
import re
import textwrap
from pathlib import Path

import pytest
from tests.conftest import ROOT

INDEX = ROOT / "docs/index.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WIDTH = 132  # characters of a line

# What an example is given: data and functions of the reader, or a value from the example before it.
OF_THE_READER = {"clips", "frames", "masks", "my_model", "params", "show"}


def links(page: Path) -> list[tuple[Path, str]]:
    """Returns the files that a page links to, each with the heading."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = [link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    return [
        ((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in found if ":" not in path
    ]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_leads_nowhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(target), f"{target} has no heading {anchor}"


def test_the_index_leads_to_every_page() -> None:
    listed = {target for target, _ in links(INDEX)}
    missing = {page for page in (ROOT / "docs").glob("*.md") if page != INDEX} - listed
    assert not missing, "say in docs/index.md what they are for"
    assert INDEX in {target for target, _ in links(ROOT / "README.md")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_lines_of_prose_are_short_enough_for_an_editor(page: Path) -> None:
    """Tables, commands and diagrams may be wider."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    too_long = [line for line in text.splitlines() if len(line) > WIDTH and not line.lstrip().startswith("|")]
    assert not too_long, f"wrap at {WIDTH} characters"


def unknown_names(code: str) -> set[str]:
    """Returns the names that a program reads and nothing in it defines."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    defined = {node.id for node in names if not isinstance(node.ctx, ast.Load)} | set(dir(builtins))
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
    return {node.id for node in names} - defined


def test_python_examples_import_what_they_use() -> None:
    found = {}
    for page in PAGES:
        blocks = re.findall(
            r"^ *```python\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        for number, block in enumerate(blocks):
            if unknown := unknown_names(textwrap.dedent(block)) - OF_THE_READER:
                found[f"{page.relative_to(ROOT)} {number}"] = unknown
    assert found == {}
