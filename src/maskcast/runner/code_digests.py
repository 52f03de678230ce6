"""The transitive imports of a module within this package.

Sources are searched, not imported, so torch is not needed. Imports inside functions count; those for type checkers
do not. Modules that are looked up by name at run time (tables of commands, ``get_stage``) are not followed. If a
union of configs accepts those of plugins, all modules of the plugins' packages count (``maskcast.plugins``).
"""

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import maskcast
from maskcast.digest import digest_json, sha256_of
from maskcast.installation import version_and_commit
from maskcast.plugins import plugin_files

PACKAGE = maskcast.__name__
ROOT = Path(maskcast.__path__[0])
NO_CODE = re.compile(r"#.*|\\\n")  # comments, and ends of lines that go on
FOR_TYPE_CHECKERS = re.compile(r"^( *)if (?:\w+\.)?TYPE_CHECKING:\s*\n(?:\1[ \t]+.*\n|[ \t]*\n)*", re.MULTILINE)
IMPORT = re.compile(
    r"(?:^|[;:])[ \t]*(?:from[ \t]+(?P<origin>[.\w]+)[ \t]+)?import\b(?P<names>[ \t]*\([^)]*\)|[^;\n]*)",
    re.MULTILINE,
)
"""An import; what only looks like one, as in a docstring, counts, too. A test compares what Python imports."""
_digest = cache(sha256_of)


def code_digest(module: str) -> str:
    """Returns a hash (32 hex digits) of ``module_digests``; without sources, as in a zip file, of the version."""
    return digest_json(module_digests(module) or version_and_commit())


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
    return digests | {key: sha256_of(file) for key, file in plugins.items()}


@cache
def _imports_of(module: str) -> frozenset[str]:
    """Returns the modules and packages of this package that a module imports, and the packages that contain it."""
    file = _source_file(module)
    imported = {module.rpartition(".")[0]}
    for origin, names in _import_statements(file.read_text(encoding="utf-8")) if file else ():
        package = module if file and file.name == "__init__.py" else module.rpartition(".")[0]
        with suppress(ImportError):  # a text of "from ... import" may have too many dots
            absolute = resolve_name(origin, package) if origin else ""
            imported |= {absolute, *(f"{absolute}.{name}".removeprefix(".") for name in names)}
    return frozenset(name for name in imported if name.split(".")[0] == PACKAGE and _source_file(name))


def _import_statements(source: str) -> Iterator[tuple[str, list[str]]]:
    """Yields what follows `from` (else an empty text) and `import` in each statement, but for type checkers.

    Each stage computes this when it starts, of 200 files; to parse them takes ten times as long.
    """
    for found in IMPORT.finditer(FOR_TYPE_CHECKERS.sub("", NO_CODE.sub("", source))):
        names = found["names"].strip("() \t\n").split(",")
        yield found["origin"] or "", [words[0] for part in names if (words := part.split())]


@cache
def _source_file(module: str) -> Path | None:
    """Returns the source file of a module or package, or None if it does not exist."""
    path = ROOT.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _has_code(file: Path) -> bool:
    """Whether a module has more than a docstring."""
    return any(not isinstance(node, ast.Expr) for node in ast.parse(file.read_bytes()).body)
