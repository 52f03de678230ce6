"""Reads files that nobody has vouched for: a file holds what it must, or one line says what is wrong with it.

Every reader goes through here: ``content_of``, ``read_text``, ``read_json`` and ``read_yaml`` give what a file
holds, ``opened`` gives it piece by piece, ``checked`` as a pydantic model, and ``parsing`` is put around what
takes it apart. Whatever they run into becomes one line with the file's name. A small file that would fill the
memory is refused before it does.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml
from pydantic import TypeAdapter, ValidationError

from maskcast.errors import MaskcastError

if TYPE_CHECKING:
    import numpy as np

SHOWN = 60  # characters of a value in a line
DIGITS = 9  # of a number that counts something
REASON = 200  # characters of what a parser says
UNQUOTED = re.compile(r":\s+\{\w+\}")  # {clip} in the place of "{clip}", which is a mapping in YAML
LFS_HEAD = b"version https://git-lfs"
LFS_POINTER = "is a pointer of Git LFS and not the file itself; run `git lfs pull` in its repository"
MOST_NODES = 1_000_000  # of a YAML file, each counted as often as aliases repeat it


def content_of(path: Path, what: str = "file", remedy: str = "give the path of a file") -> bytes:
    """Returns what a file holds; see ``opened``."""
    with opened(path, what, remedy) as file:
        return file.read()


@contextmanager
def opened(path: Path, what: str, remedy: str) -> Iterator[BinaryIO]:
    """Opens a file to be read.

    Args:
        path: the file; a pipe or a device, which may never end, is none.
        what: it is, for errors.
        remedy: what to do where there is none.

    Raises:
        MaskcastError: if there is no such file, or it cannot be read.
    """
    try:
        # Else the opening of a pipe waits for somebody who writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MaskcastError(f"{path}: no such {what}; {remedy}") from None
    except (OSError, ValueError) as error:  # the latter: a zero in the name
        raise MaskcastError(f"{path}: cannot be read ({reason_of(error)}); {remedy}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise MaskcastError(f"{path}: a pipe or device and no file; {remedy}")
        with open(descriptor, "rb", closefd=False) as file:  # raises where it is a folder
            yield file
    except OSError as error:
        raise MaskcastError(f"{path}: cannot be read ({reason_of(error)}); {remedy}") from None
    finally:
        os.close(descriptor)


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS puts in the place of a large one, until that is fetched, too."""
    with opened(path, "file", "give the path of a file") as file:
        return file.read(len(LFS_HEAD)) == LFS_HEAD


def read_text(path: Path, what: str, remedy: str, encoding: str = "utf-8-sig") -> str:
    """Returns the text of a file, its lines ended as on Unix, without the mark that Windows may begin it with.

    Raises:
        MaskcastError: if it cannot be read, or is no text.
    """
    raw = content_of(path, what, remedy)
    with parsing(path, f"a {what}", remedy):
        return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def read_json(
    path: Path, what: str = "JSON file", remedy: str = "write it again, or give the path of another"
) -> Any:
    """Returns what a JSON file says; see ``content_of``.

    Raises:
        MaskcastError: if it cannot be read, or is no JSON.
    """
    raw = content_of(path, what, remedy)
    with parsing(path, "valid JSON", remedy):
        return json.loads(raw)


def read_yaml(path: Path, what: str, remedy: str, loader: Any = None) -> Any:
    """Returns what a YAML file says; see ``content_of``.

    Args:
        path: the file.
        what: it is, for errors.
        remedy: what to do where there is none.
        loader: of PyYAML, a safe one; None is ``SafeLoader``.

    Raises:
        MaskcastError: if it cannot be read, is no YAML, has a key twice, or would become too large by its aliases.
    """
    raw = content_of(path, what, remedy)
    with parsing(path, "valid YAML", f"give a YAML {what}"):
        text = raw.decode("utf-8")
        try:
            return yaml.load(text, _bounded(loader or yaml.SafeLoader))  # noqa: S506 - a safe one
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}: " if mark else ""
            problem = str(getattr(error, "problem", None) or error).splitlines()[0]
            line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
            remedy = "put text that begins with { in quotes" if UNQUOTED.search(line) else "mend that line"
            raise MaskcastError(f"{path}: {where}not valid YAML ({problem}); {remedy}") from None


def mapped_array(path: Path, remedy: str) -> "np.ndarray":
    """Returns the array of a ``.npy`` file, memory-mapped; pickled objects are refused.

    Raises:
        MaskcastError: if there is none, or it is damaged.
    """
    if not path.is_file():
        raise MaskcastError(f"{path}: no such array; {remedy}")
    import numpy as np

    with parsing(path, "a readable array", remedy):
        return np.load(path, mmap_mode="r", allow_pickle=False)


def array_of(data: Any, what: str, wanted: str) -> "np.ndarray":
    """Returns what is given as an array.

    Args:
        data: an array, nested lists, or a tensor on the CPU.
        what: what errors call it.
        wanted: what to give, in errors.

    Raises:
        MaskcastError: NumPy makes no array of it, such as of a tensor on a GPU.
    """
    import numpy as np

    try:
        return np.asarray(data)
    except (TypeError, ValueError, RuntimeError) as error:
        said = f"{what}: got a {type(data).__name__} that is no array ({reason_of(error)})"
        raise MaskcastError(f"{said}; give {wanted}") from error


def checked(model: Any, value: Any, path: Path, what: str, remedy: str) -> Any:
    """Returns a value of a file as a pydantic model, or as any type that pydantic knows.

    Raises:
        MaskcastError: naming the file and the first key at fault.
    """
    with parsing(path, what, remedy):
        return TypeAdapter(model).validate_python(value)


@contextmanager
def parsing(path: Path | str, what: str, remedy: str) -> Iterator[None]:
    """Turns whatever a parser runs into into one line about the file.

    Args:
        path: the file, and perhaps a place in it.
        what: it must be, after "not".
        remedy: what to do.
    """
    try:
        yield
    except (MaskcastError, MemoryError):
        raise
    except Exception as error:
        raise MaskcastError(f"{path}: not {what} ({reason_of(error)}); {remedy}") from error


def reason_of(error: Exception) -> str:
    """Returns what an error says, in a few words on one line."""
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))[:SHOWN]
        text = f"{place}: {fault['msg']}" if place else fault["msg"]
    elif isinstance(error, KeyError):
        text = f"lacks {shown(error.args[0] if error.args else '')}"
    elif isinstance(error, RecursionError):
        text = "nested too deeply"
    elif isinstance(error, OSError):
        text = error.strerror or str(error)
    elif isinstance(error, UnicodeError):
        text = f"no text in {getattr(error, 'encoding', 'UTF-8')}"
    else:
        text = str(error) or type(error).__name__
    text = " ".join(text.split())
    return text if len(text) <= REASON else f"{text[: REASON - 3]}..."


def is_count(word: str) -> bool:
    """Whether a word of a file is a whole number from 0 on, as frames and sizes are counted."""
    return word.isdecimal() and len(word) <= DIGITS


def counted(number: int, what: str, does: str = "", do: str = "", *, commas: bool = False) -> str:
    """Returns a number of things as a line says it: `1 frame`, `2 frames`, and with verbs `1 frame is`.

    Args:
        number: of the things.
        what: one of them.
        does: what one of them does.
        do: what several do.
        commas: between thousands, as on pages.
    """
    words = (what, does) if number == 1 else (f"{what}{'es' if what[-1] in 'sx' else 's'}", do)
    return " ".join(filter(None, (f"{number:,}" if commas else str(number), *words)))


def shown(value: Any) -> str:
    """Returns a value as an error shows it, on one short line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        return f"a {type(value).__name__} that is too large to be shown"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _bounded(loader: Any) -> Any:
    """Returns a loader that refuses what aliases would make too large, or endless, and keys that stand twice."""

    class Bounded(loader):
        def get_single_node(self) -> Any:
            node = super().get_single_node()
            _count(node, {})
            return node

    return Bounded


def _refuse_twins(node: yaml.MappingNode) -> None:
    """Refuses a key that stands twice, of which PyYAML would take the last without a word."""
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            continue
        if (key.tag, key.value) in seen:
            raise yaml.MarkedYAMLError(problem=f"key {shown(key.value)} stands twice", problem_mark=key.start_mark)
        seen.add((key.tag, key.value))


def _count(node: Any, known: dict[int, int | None]) -> int:
    """Returns how many nodes one stands for."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    found = known.get(id(node), 0)
    if found is None:
        raise ValueError("an alias stands within what it is the name of")
    if found:
        return found
    known[id(node)] = None
    if isinstance(node, yaml.MappingNode):
        _refuse_twins(node)
    inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    total = 1 + sum(_count(part, known) for part in inner)
    if total > MOST_NODES:
        raise ValueError(f"aliases make more than {MOST_NODES} values of it")
    known[id(node)] = total
    return total
