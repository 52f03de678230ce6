"""The transitive imports of a module within this package.

Sources are parsed, not imported, so torch is not needed. Imports inside functions count; those for type checkers
do not. Modules that are looked up by name at run time (tables of commands, ``get_stage``) are not followed. If a
union of configs accepts those of plugins, all modules of the plugins' packages count (``maskcast.plugins``).
"""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import maskcast
from maskcast.digest import sha256_of
from maskcast.plugins import plugin_files

PACKAGE = maskcast.__name__
ROOT = Path(maskcast.__path__[0])
_digest = cache(sha256_of)


def module_digests(module: str) -> dict[str, str]:
    """Returns the sha256 of the module and of its transitive imports, sorted by path below its package's parent.

    A package's ``__init__`` counts if it has more than a docstring.

    Args:
        module: its full name, e.g. ``maskcast.stages.evaluate``.
    """
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += _imports_of(name)
    files = {_source_file(name): name for name in seen}
    paths = sorted(file for file in files if file is not None and (file.name != "__init__.py" or _has_code(file)))
    digests = {path.relative_to(ROOT.parent).as_posix(): _digest(path) for path in paths}
    plugins = {key: file for name in sorted(seen) for key, file in plugin_files(name).items()}
    return digests | {key: _digest(file) for key, file in plugins.items()}


@cache
def _imports_of(module: str) -> frozenset[str]:
    """Returns the modules and packages of this package that a module imports, and the packages that contain it."""
    file = _source_file(module)
    imported = {module.rpartition(".")[0]}
    for node in _nodes(ast.parse(file.read_bytes())) if file else ():
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module if file and file.name == "__init__.py" else module.rpartition(".")[0]
            origin = resolve_name("." * node.level + (node.module or ""), package)
            imported |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return frozenset(name for name in imported if name.split(".")[0] == PACKAGE and _source_file(name))


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields all nodes except those below ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _nodes(child)


@cache
def _source_file(module: str) -> Path | None:
    """Returns the source file of a module or package, or None if it does not exist."""
    path = ROOT.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _has_code(file: Path) -> bool:
    """Whether a module has more than a docstring."""
    return any(not isinstance(node, ast.Expr) for node in ast.parse(file.read_bytes()).body)
