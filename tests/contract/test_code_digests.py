"""The imports that count as code of a stage are those that Python's parser finds."""

import ast
from collections.abc import Iterator

import pytest
from tests.conftest import ROOT

from maskcast.runner.code_digests import _import_statements

SOURCES = sorted((ROOT / "src/maskcast").rglob("*.py"))


def parsed(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yields where from and what the statements below a node import, but for ``if TYPE_CHECKING``."""
    if isinstance(node, ast.Import):
        yield from (("", alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for child in node.orelse:
            yield from parsed(child)
    else:
        for child in ast.iter_child_nodes(node):
            yield from parsed(child)


def found(source: str) -> set[tuple[str, str]]:
    return {(origin, name) for origin, names in _import_statements(source) for name in names}


def test_every_import_of_the_package_is_found() -> None:
    assert len(SOURCES) > 200
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        expected = set(parsed(ast.parse(source)))
        assert expected <= found(source), path
        extra = {origin or name for origin, name in found(source) - expected}
        assert not any(name.startswith(("maskcast.", ".")) for name in extra), path


@pytest.mark.parametrize(
    "source",
    [
        "import a.b, c.d as e  # f",
        "from . import a",
        "from ..a.b import c as d, e",
        "from a import (  # the (first)\n    b,\n    c as d,  # and (c)\n)",
        "from a import(b)",
        "from a import b, \\\n    c",
        "def f():\n    if x: import a; from b import c\n    return c",
        "try:\n\timport a\nexcept ImportError:\n\tfrom b import *",
        "if TYPE_CHECKING:\n    import a\n\n    from b import c\nimport d",
        "if typing.TYPE_CHECKING:  # types\n    import a\nelse:\n    import b",
        "class A:\n    if TYPE_CHECKING:\n        import a\n    import b",
    ],
)
def test_imports_are_found_however_they_are_written(source: str) -> None:
    assert found(source) == set(parsed(ast.parse(source)))
