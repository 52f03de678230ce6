"""Safe writing of files."""

import json
from errno import EINVAL
from pathlib import Path
from typing import Any
from uuid import uuid4


def refuse_device(path: Path) -> None:
    """Refuses to replace a pipe or device, such as ``/dev/null``, by a file or folder.

    Raises:
        OSError: the path is a pipe or device.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(EINVAL, "a pipe or device, no file")


def write_atomically(path: Path, text: str) -> None:
    """Writes a text atomically; if two processes write at once, the last one wins."""
    refuse_device(path)
    partial = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")  # a name of its own for each writer
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON with a final newline."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
