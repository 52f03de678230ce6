"""Writes files that people read, too."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, indented, with a newline at its end."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
