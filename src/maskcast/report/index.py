"""The page that links to all pages of a folder, and to which all of them link."""

import html
import re
from datetime import UTC, datetime
from pathlib import Path

from maskcast.markup import element, table
from maskcast.report.page import GENERATOR, INDEX, document
from maskcast.writing import write_whole

HEAD_BYTES = 20_000  # of a page: more than its head


def write_index(folder: Path) -> Path | None:
    """Writes the page anew, after a page of the folder has changed.

    Returns:
        The page, or None where the folder has no pages of ours, or an index of somebody else.
    """
    index = folder / INDEX
    if index.exists() and GENERATOR not in _head(index):
        return None
    pages = {path: _head(path) for path in folder.glob("*.html") if path != index}
    ours = [path for path, head in pages.items() if GENERATOR in head]
    if not ours:
        return None
    rows = []
    for path in sorted(ours, key=lambda path: path.stat().st_mtime):
        title = re.search("<title>(.*?)</title>", pages[path])
        name = html.unescape(title[1]) if title else path.stem
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        score = re.search('<meta name="description" content="(.*?)">', pages[path])
        told = html.unescape(score[1]) if score else ""
        rows.append([element("a", name, href=path.name), told, f"{written:%Y-%m-%d %H:%M} UTC"])
    header = ["stage", "score", "written"]
    written_table = table("One page a stage, in the order in which they were written", header, rows)
    write_whole(index, document("maskcast", {"Pages": element("div", written_table, class_="facts")}))
    return index


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES).decode("utf-8", errors="replace")
