"""Reads untrusted files; anything wrong with a file becomes an error of one line.

All readers use these functions: ``read_file``, ``read_text``, ``read_json`` and ``read_yaml`` return a file's
content, ``open_file`` gives a stream, ``validated`` validates a value with pydantic, and ``parsing`` wraps other
parsers. Errors name the file. A small file that would expand and fill the memory is refused.
"""

import codecs
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml
from pydantic import TypeAdapter, ValidationError

from maskcast.errors import MaskcastError, remedy_of

if TYPE_CHECKING:
    import numpy as np

MAX_VALUE_CHARS = 60  # maximum characters of a value in a message
MAX_DIGITS = 9  # maximum digits of a count
MAX_REASON_CHARS = 200  # maximum characters of a parser's message
UNQUOTED = re.compile(r":\s+\{\w+\}")  # {clip} without quotes, which YAML reads as a mapping
WINDOWS = "Windows-1252"  # encoding of Western European Windows
LFS_HEAD = b"version https://git-lfs"
LFS_POINTER = "is a pointer of Git LFS and not the file itself; run `git lfs pull` in its repository"
MAX_NODES = 1_000_000  # maximum nodes of a YAML file, with aliases expanded


def read_file(path: Path, what: str = "file", remedy: str = "give the path of a file") -> bytes:
    """Returns the content of a file; see ``open_file``."""
    with open_file(path, what, remedy) as file:
        return file.read()


@contextmanager
def open_file(path: Path, what: str, remedy: str) -> Iterator[BinaryIO]:
    """Opens a file for reading.

    Args:
        path: the file; pipes and devices are refused, as they may never end.
        what: kind of the file, for errors.
        remedy: what the user should do if it cannot be read.

    Raises:
        MaskcastError: if the file does not exist or cannot be read.
    """
    try:
        # O_NONBLOCK, because opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MaskcastError(f"{path}: no such {what}; {remedy}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise MaskcastError(f"{path}: cannot be read ({reason_of(error)}); {remedy_of(error, remedy)}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise MaskcastError(f"{path}: is a pipe or device, not a file; {remedy}")
        with open(descriptor, "rb", closefd=False) as file:  # raises for a folder
            yield file
    except OSError as error:
        raise MaskcastError(f"{path}: cannot be read ({reason_of(error)}); {remedy_of(error, remedy)}") from None
    finally:
        os.close(descriptor)


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is a Git LFS pointer, i.e. the large file has not been fetched."""
    with open_file(path, "file", "give the path of a file") as file:
        return file.read(len(LFS_HEAD)) == LFS_HEAD


def read_text(path: Path, what: str, remedy: str, encoding: str = "utf-8-sig") -> str:
    """Returns the text of a file with Unix line ends and without byte order mark.

    Raises:
        MaskcastError: if it cannot be read or decoded.
    """
    raw = read_file(path, what, remedy)
    with parsing(path, f"a {what}", remedy):
        return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def decode_text(raw: bytes) -> tuple[str, str]:
    """Returns the text of a file that may come from any program, and its encoding.

    That is UTF-8, or UTF-16 if it begins with a byte order mark, else ``WINDOWS``.
    """
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace"), "UTF-16"
    with suppress(UnicodeDecodeError):
        return raw.decode("utf-8-sig"), "UTF-8"
    return raw.decode("cp1252", "replace"), WINDOWS


def read_json(
    path: Path, what: str = "JSON file", remedy: str = "write it again, or give the path of another"
) -> Any:
    """Returns the content of a JSON file; see ``read_file``.

    Raises:
        MaskcastError: if it cannot be read or is not JSON.
    """
    raw = read_file(path, what, remedy)
    with parsing(path, "valid JSON", remedy):
        return json.loads(raw)


def read_yaml(path: Path, what: str, remedy: str, loader: Any = None) -> Any:
    """Returns the content of a YAML file; see ``read_file``.

    Args:
        path: the file.
        what: kind of the file, for errors.
        remedy: what the user should do if it does not exist.
        loader: a safe loader of PyYAML; None is ``SafeLoader``.

    Raises:
        MaskcastError: if it cannot be read, is not YAML, has duplicate keys, or expands too much by aliases.
    """
    raw = read_file(path, what, remedy)
    with parsing(path, "valid YAML", f"give a YAML {what}"):
        text = raw.decode("utf-8")
        try:
            return yaml.load(text, _strict_loader(loader or yaml.SafeLoader))  # noqa: S506 - a safe one
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            position = f"line {mark.line + 1}: " if mark else ""
            problem = str(getattr(error, "problem", None) or error).splitlines()[0]
            line = text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""
            remedy = "put text that begins with { in quotes" if UNQUOTED.search(line) else "fix that line"
            raise MaskcastError(f"{path}: {position}not valid YAML ({problem}); {remedy}") from None


def load_memmap(path: Path, remedy: str) -> "np.ndarray":
    """Returns the array of a ``.npy`` file, memory-mapped; pickled objects are refused.

    Raises:
        MaskcastError: if it does not exist or is damaged.
    """
    if not path.is_file():
        raise MaskcastError(f"{path}: no such array; {remedy}")
    import numpy as np

    with parsing(path, "a readable array", remedy):
        return np.load(path, mmap_mode="r", allow_pickle=False)


def as_array(data: Any, what: str, wanted: str) -> "np.ndarray":
    """Returns data as an array.

    Args:
        data: an array, nested lists, or a tensor on the CPU.
        what: name of the data in errors.
        wanted: what to pass instead, for errors.

    Raises:
        MaskcastError: NumPy cannot convert it, e.g. a tensor on a GPU.
    """
    import numpy as np

    try:
        return np.asarray(data)
    except (TypeError, ValueError, RuntimeError) as error:
        problem = f"{what}: a {type(data).__name__} cannot be converted to an array ({reason_of(error)})"
        raise MaskcastError(f"{problem}; give {wanted}") from error


def validated(model: Any, value: Any, path: Path, what: str, remedy: str) -> Any:
    """Returns a value from a file, validated as a pydantic model or any type that pydantic supports.

    Raises:
        MaskcastError: names the file and the first faulty key.
    """
    with parsing(path, what, remedy):
        return TypeAdapter(model).validate_python(value)


@contextmanager
def parsing(path: Path | str, what: str, remedy: str) -> Iterator[None]:
    """Turns any error of a parser into one line about the file.

    Args:
        path: the file, possibly with a position in it.
        what: the expected content; follows "not" in the message.
        remedy: what the user should do.
    """
    try:
        yield
    except (MaskcastError, MemoryError):
        raise
    except Exception as error:
        raise MaskcastError(f"{path}: not {what} ({reason_of(error)}); {remedy}") from error


def reason_of(error: Exception) -> str:
    """Returns a short reason from an error, on one line."""
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False)[0]
        key = ".".join(map(str, fault["loc"]))[:MAX_VALUE_CHARS]
        text = f"{key}: {fault['msg']}" if key else fault["msg"]
    elif isinstance(error, KeyError):
        text = f"missing key {short_repr(error.args[0] if error.args else '')}"
    elif isinstance(error, RecursionError):
        text = "nested too deeply"
    elif isinstance(error, OSError):
        text = error.strerror or str(error)
    elif isinstance(error, UnicodeError):
        text = f"not text in {getattr(error, 'encoding', 'UTF-8')}"
    else:
        text = str(error) or type(error).__name__
    text = " ".join(text.split())
    return text if len(text) <= MAX_REASON_CHARS else f"{text[: MAX_REASON_CHARS - 3]}..."


def is_small_integer(word: str) -> bool:
    """Whether a text is a non-negative integer of at most ``MAX_DIGITS`` digits."""
    return word.isdecimal() and len(word) <= MAX_DIGITS


def pluralize(number: int, what: str, does: str = "", do: str = "", *, commas: bool = False) -> str:
    """Returns a number with its noun: `1 frame`, `2 frames`; with verbs, `1 frame is`.

    Args:
        number: the number.
        what: noun in the singular.
        does: verb in the singular.
        do: verb in the plural.
        commas: whether to separate thousands, as on pages.
    """
    words = (what, does) if number == 1 else (f"{what}{'es' if what[-1] in 'sx' else 's'}", do)
    return " ".join(filter(None, (f"{number:,}" if commas else str(number), *words)))


def first_few(texts: Sequence[str], most: int, more: str = ", ...") -> str:
    """Returns the first texts, ``most`` of them, separated by commas; ``more`` stands for the others, if any."""
    return ", ".join(texts[:most]) + (more if len(texts) > most else "")


def format_bytes(count: int) -> str:
    """Returns a size in words, with one decimal: `1.8 GB`, `12.5 MB`, `0.3 kB`."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def short_repr(value: Any) -> str:
    """Returns a value for an error message, on one short line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number with more digits than Python converts
        return f"a {type(value).__name__} that is too large to be shown"
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 3]}..."


def _strict_loader(loader: Any) -> Any:
    """Returns a loader that refuses aliases that expand too much or endlessly, and duplicate keys."""

    class Bounded(loader):
        def get_single_node(self) -> Any:
            node = super().get_single_node()
            _count_nodes(node, {})
            return node

    return Bounded


def _refuse_duplicate_keys(node: yaml.MappingNode) -> None:
    """Refuses duplicate keys, of which PyYAML silently takes the last."""
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            continue
        if (key.tag, key.value) in seen:
            raise yaml.MarkedYAMLError(
                problem=f"duplicate key {short_repr(key.value)}", problem_mark=key.start_mark
            )
        seen.add((key.tag, key.value))


def _count_nodes(node: Any, known: dict[int, int | None]) -> int:
    """Returns the number of nodes with aliases expanded."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    count = known.get(id(node), 0)
    if count is None:
        raise ValueError("an alias refers to a node that contains it")
    if count:
        return count
    known[id(node)] = None
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicate_keys(node)
    inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    total = 1 + sum(_count_nodes(part, known) for part in inner)
    if total > MAX_NODES:
        raise ValueError(f"aliases expand to more than {MAX_NODES} values")
    known[id(node)] = total
    return total
