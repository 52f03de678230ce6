"""Writes files that people read, too."""

import json
from errno import EINVAL
from pathlib import Path
from typing import Any
from uuid import uuid4


def refuse_device(path: Path) -> None:
    """Refuses to put a file or folder in the place of a pipe or device, such as ``/dev/null``.

    Raises:
        OSError: it is one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(EINVAL, "a pipe or device, no file")


def write_whole(path: Path, text: str) -> None:
    """Writes a text that is there whole or not at all; of two who write it at once the last one is right."""
    refuse_device(path)
    partial = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")  # of this writer alone
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, indented, with a newline at its end."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
