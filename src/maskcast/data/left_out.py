"""A page of the clips that are left out, with a picture of each that has one and why."""

from pathlib import Path

from PIL import Image

from maskcast.errors import PicturedError
from maskcast.markup import Html, element

LEFT_OUT = "left-out"  # folder in a clip store


class LeftOut:
    """The page and its pictures in a clip store; nothing where there are none.

    A picture is written when it comes: of thousands of clips they would fill the memory.

    Args:
        store: folder of the store.
    """

    def __init__(self, store: Path) -> None:
        self.page = store / LEFT_OUT / "index.html"
        self._rows: list[Html] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, clip_id: str, error: PicturedError) -> None:
        """Takes what is wrong with a clip."""
        self.page.parent.mkdir(parents=True, exist_ok=True)
        name = f"{len(self._rows):04d}.png"
        Image.fromarray(error.picture_HWC).save(self.page.with_name(name))
        picture = element("img", src=name, alt="")
        self._rows.append(element("p", element("b", clip_id), ": ", error, element("br"), picture))

    def write(self) -> None:
        """Writes the page."""
        if not self._rows:
            return
        head = element("title", "Clips that are left out")
        page = element("html", element("head", head), element("body", *self._rows), lang="en")
        self.page.write_text(Html("<!doctype html>") + page + "\n", encoding="utf-8")
