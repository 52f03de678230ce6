"""What later versions of Python take otherwise than the one that runs the tests."""

import ast
import builtins

from tests.conftest import ROOT


def names_of(body: list[ast.stmt]) -> set[str]:
    """Returns the names that a class gives to its methods and attributes."""
    methods = {one.name for one in body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
    targets = [target for one in body if isinstance(one, ast.Assign) for target in one.targets]
    targets += [one.target for one in body if isinstance(one, ast.AnnAssign)]
    return methods | {target.id for target in targets if isinstance(target, ast.Name)}


def annotations_of(body: list[ast.stmt]) -> list[ast.expr]:
    """Returns what a class says of the types of its attributes and of its methods' arguments and results."""
    found = [one.annotation for one in body if isinstance(one, ast.AnnAssign)]
    for one in body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            found += [
                node.annotation for node in ast.walk(one.args) if isinstance(node, ast.arg) and node.annotation
            ]
            found += [one.returns] if one.returns else []
    return found


def hidden(source: str) -> list[str]:
    """Returns the classes of a module that give the name of a builtin of their annotations to something else."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            used = {n.id for one in annotations_of(node.body) for n in ast.walk(one) if isinstance(n, ast.Name)}
            found += [f"{node.name}.{name}" for name in sorted(names_of(node.body) & used & set(dir(builtins)))]
    return found


def test_no_class_takes_the_name_of_a_builtin_that_its_annotations_have() -> None:
    # Python 3.14 looks at annotations when the class is whole, and at its own names first
    assert hidden("class A:\n  size: list[int]\n  def list(self) -> int: ...") == ["A.list"]
    files = [path for part in ("src/maskcast", "components", "pipelines") for path in (ROOT / part).rglob("*.py")]
    assert not {str(path): found for path in files if (found := hidden(path.read_text(encoding="utf-8")))}
