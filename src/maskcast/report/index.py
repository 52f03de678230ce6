"""An index page that links to all pages of a folder; each of them links back to it."""

import html
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from maskcast.errors import MaskcastError
from maskcast.markup import element, table
from maskcast.reading import open_file
from maskcast.report.page import GENERATOR, INDEX, document
from maskcast.writing import write_atomically

HEAD_BYTES = 20_000  # more than the head of a page


def write_index(folder: Path) -> Path | None:
    """Rewrites the index after a page of the folder has changed; removes it if no page is left.

    Returns:
        The index, or None if the folder has no pages of maskcast, or another tool's index.
    """
    index = folder / INDEX
    if index.exists() and GENERATOR not in _head(index)[1]:
        return None
    pages = {path: _head(path) for path in folder.glob("*.html") if path != index}
    our_pages = {path: page for path, page in pages.items() if GENERATOR in page[1]}
    if not our_pages:
        index.unlink(missing_ok=True)
        return None
    rows = []
    for path, (when, head) in sorted(our_pages.items(), key=lambda item: item[1][0]):
        title = re.search("<title>(.*?)</title>", head)
        name = html.unescape(title[1]) if title else path.stem
        written = datetime.fromtimestamp(when, UTC)
        score = re.search('<meta name="description" content="(.*?)">', head)
        score_text = html.unescape(score[1]) if score else ""
        address = quote(os.fsencode(path.name))
        rows.append([element("a", name, href=address), score_text, f"{written:%Y-%m-%d %H:%M} UTC"])
    header = ["stage", "score", "written"]
    written_table = table("One page per stage, in the order of writing", header, rows)
    write_atomically(index, document("maskcast", {"Pages": element("div", written_table, class_="facts")}))
    return index


def _head(path: Path) -> tuple[float, str]:
    """Returns the modification time and the beginning of a page; 0 and an empty text if it cannot be read.

    The stage has done its work before it updates the index. It must not fail because of another file beside its
    page.
    """
    try:
        with open_file(path, "page", "remove it") as file:
            return os.fstat(file.fileno()).st_mtime, file.read(HEAD_BYTES).decode("utf-8", errors="replace")
    except MaskcastError:
        return 0.0, ""
