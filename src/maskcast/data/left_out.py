"""A page of the clips that are left out, with a picture of each that has one and why."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from maskcast.errors import PicturedError
from maskcast.markup import Html, element

LEFT_OUT = "left-out"  # folder in a clip store


def show_left_out(store: Path, clips: Mapping[str, PicturedError]) -> None:
    """Writes the page and its pictures into a clip store; nothing where there are none.

    Args:
        store: folder of the store.
        clips: what is wrong with each, by id.
    """
    if not clips:
        return
    folder = store / LEFT_OUT
    folder.mkdir()
    rows = []
    for number, (clip_id, error) in enumerate(clips.items()):
        name = f"{number:04d}.png"
        Image.fromarray(error.picture_HWC).save(folder / name)
        rows.append(
            element("p", element("b", clip_id), ": ", error, element("br"), element("img", src=name, alt=""))
        )
    head = element("title", "Clips that are left out")
    page = element("html", element("head", head), element("body", *rows), lang="en")
    (folder / "index.html").write_text(Html("<!doctype html>") + page + "\n", encoding="utf-8")
