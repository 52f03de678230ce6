"""A clip on a page: all frames are in one picture, and a slider selects the frame to show."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.evaluation.view import ForecastView
from maskcast.markup import Html, concatenate, data_uri, element
from maskcast.report.overlays import resize_picture
from maskcast.report.paint import Entry
from maskcast.report.pictures import panels

MAX_FRAMES = 24  # of a longer clip, evenly spaced frames are shown
MAX_PIXELS = 160 * 240  # of one panel; larger panels are shrunk
MAX_SIDE = 16_000  # pixels of a picture; the limit of WebP is 16,383
PADDING = 8  # pixels of each panel's edge repeated around it: WebP mixes colours of up to 8 neighbouring pixels
MAX_BYTES = 900_000  # of one clip's picture, so that a page with three of them stays below 5 MB
QUALITIES = (85, 70, 50, 30, 10)


@dataclass(frozen=True)
class Sprite:
    """All panels of a clip in one WebP picture: a column per frame, a row per panel, each panel with its padding.

    Args:
        data: the WebP file.
        frames: frame numbers, from 0.
        panels: names of the rows.
        size: height and width of one panel without padding, in pixels.
    """

    data: bytes
    frames: tuple[int, ...]
    panels: tuple[str, ...]
    size: tuple[int, int]


def draw_sprite(view: ForecastView) -> Sprite:
    """Draws the panels of a forecast; without RGB frames it is lossless if it fits."""
    return sprite_of(len(view.truth), lambda t: panels(view, t), lossless=view.frames is None)


def sprite_of(count: int, panels: Callable[[int], Mapping[str, np.ndarray]], *, lossless: bool = False) -> Sprite:
    """Draws the panels of a clip.

    Args:
        count: number of frames of the clip.
        panels: returns the pictures (H, W, C) uint8 of a frame by name, all of one size.
        lossless: whether to compress without loss if the result fits.
    """
    frames = evenly_spaced(count, MAX_FRAMES)
    columns = [panels(t) for t in frames]
    height, width = next(iter(columns[0].values())).shape[:2]
    most_width, most_height = (MAX_SIDE // count - 2 * PADDING for count in (len(columns), len(columns[0])))
    scale = min(1.0, (MAX_PIXELS / (height * width)) ** 0.5, most_width / width, most_height / height)
    height, width = max(round(height * scale), 1), max(round(width * scale), 1)
    around = [(PADDING, PADDING), (PADDING, PADDING), (0, 0)]
    cells = [
        [np.pad(np.asarray(resize_picture(panel, width, height)), around, "edge") for panel in column.values()]
        for column in columns
    ]
    sheet = Image.fromarray(np.concatenate([np.concatenate(column) for column in cells], axis=1))
    data = b""
    if lossless:
        data = _webp(sheet, lossless=True)
    for quality in QUALITIES:
        if data and len(data) <= MAX_BYTES:
            break
        data = _webp(sheet, quality=quality)
    return Sprite(data, tuple(frames), tuple(columns[0]), (height, width))


def player(
    name: str,
    title: str,
    sprite: Sprite,
    captions: Mapping[str, str],
    frames: Sequence[str],
    classes: Sequence[Entry],
    *,
    threes: bool = False,
) -> Html:
    """Returns a clip with a slider and a play button; without scripts, its last frame is shown.

    A clip of one frame has neither.

    Args:
        name: identifier, unique on the page.
        title: heading.
        sprite: the panels.
        captions: captions by panel.
        frames: text for each frame of the sprite.
        classes: names and colours of the visible classes.
        threes: whether three panels make a row, not four; two do on narrow screens.
    """
    height, width = sprite.size
    uri = data_uri(sprite.data, "image/webp")
    last = len(sprite.frames) - 1
    across, down = width + 2 * PADDING, height + 2 * PADDING  # from one panel to the next
    whole = {"width": across * len(sprite.frames), "height": down * len(sprite.panels)}
    image = element("image", id=f"{name}-frames", href=uri, x=-PADDING, y=-PADDING, **whole)
    source = element("svg", image, class_="sprites", aria_hidden="true")
    panels = [
        element(
            "figure",
            element(
                "svg",
                element("use", href=f"#{name}-frames"),
                viewBox=f"{across * last} {down * row} {width} {height}",
                data_across=across,
                role="img",
                aria_label=f"{captions[panel]}, {frames[last]}",
                data_name=captions[panel],
            ),
            element("figcaption", captions[panel]),
        )
        for row, panel in enumerate(sprite.panels)
    ]
    slider = element(
        "input",
        type="range",
        min=0,
        max=last,
        value=last,
        aria_label=f"Frame of {title}",
        aria_valuetext=frames[last],
        data_frames=json.dumps(list(frames)),
    )
    label = element("label", slider, element("span", frames[last], class_="now", aria_hidden="true"))
    # Hidden until a script shows it.
    play = element("button", "Play", type="button", class_="play", hidden=True, aria_describedby=name)
    body = concatenate(
        [element("div", *panels, class_="panels threes" if threes else "panels"), legend(classes, "Classes")]
    )
    controls = element("div", play, label, class_="controls") if last else Html()
    return element(
        "article", element("h3", title, id=name), source, body, controls, class_="clip", aria_labelledby=name
    )


def legend(entries: Sequence[Entry], label: str) -> Html:
    """Returns a legend of colours; empty without entries.

    Args:
        entries: names and colours.
        label: what the colours stand for.
    """
    items = [
        element(
            "li",
            element(
                "svg",
                element("rect", width=12, height=12, rx=2, fill=f"rgb{colour}"),
                viewBox="0 0 12 12",
                class_="swatch",
                aria_hidden="true",
            ),
            name,
        )
        for name, colour in entries
    ]
    return element("ul", *items, class_="legend", aria_label=label) if items else Html()


def _webp(sheet: Image.Image, **options: bool | int) -> bytes:
    file = BytesIO()
    sheet.save(file, format="webp", method=4, **options)
    return file.getvalue()
