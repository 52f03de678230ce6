"""Confusions between classes on a page: the most frequent as a list, all as a heat map.

Legend: K classes; a matrix M_KK has rows = target class, columns = forecast class, in pixels.
"""

from collections.abc import Sequence

import numpy as np

from maskcast.evaluation.scores import ForecastScores
from maskcast.markup import Html, concatenate, element, scrolling, table
from maskcast.reading import pluralize
from maskcast.report.paint import elided, font

MAX_LISTED = 12  # number of pairs of classes
MAX_CLASSES = 60  # of the heat map; more would not be legible
CELL, NUMBER = 15, 30  # pixels in the heat map: side of a cell, width of a class number
# pixels: widest class name, font size for measuring it; fonts of pages are wider
MAX_NAME_WIDTH, FONT_SIZE = 130, 10


def confusions(scores: ForecastScores, classes: Sequence[str]) -> Html:
    """Returns the confusions at the last scored frame: a sentence, a list, and a heat map."""
    matrix_KK = scores.matrix_hKK[scores.last]
    wrong_KK = matrix_KK * ~np.eye(len(classes), dtype=bool)
    true_K = matrix_KK.sum(axis=1)
    frame = scores.frame_numbers[scores.last]
    others = int(true_K[1:].sum())
    missed, confused = (_share(part.sum(), others) for part in (wrong_KK[1:, 0], wrong_KK[1:, 1:]))
    first = classes[0]
    other = f" and {confused} as another wrong class" if len(classes) > 2 else ""
    lead = element(
        "p",
        f"Of {pluralize(others, 'pixel', commas=True)} of frame {frame} that are not {first}, {missed} were "
        f"forecast as {first}{other}. Of {pluralize(true_K[0], 'pixel', commas=True)} of {first}, "
        f"{_share(wrong_KK[0].sum(), true_K[0])} were forecast as another class.",
    )
    among_others = [(i, j) for i in range(1, len(classes)) for j in range(1, len(classes)) if wrong_KK[i, j]]
    rows = [
        [classes[i], classes[j], f"{wrong_KK[i, j]:,}", _share(wrong_KK[i, j], true_K[i])]
        for i, j in sorted(among_others, key=lambda pair: -wrong_KK[pair])[:MAX_LISTED]
    ]
    header = ["truth", "forecast as", "pixels", "of the true class"]
    listed = table(f"Confusions between other classes than {first}, most pixels first", header, rows)
    return concatenate([lead, *([listed] if rows else []), _heat_map(matrix_KK, wrong_KK, classes, frame)])


def _heat_map(matrix_KK: np.ndarray, wrong_KK: np.ndarray, classes: Sequence[str], frame: int) -> Html:
    present_K = (matrix_KK.sum(axis=0) + matrix_KK.sum(axis=1)) > 0
    errors_K = wrong_KK.sum(axis=0) + wrong_KK.sum(axis=1)
    shown = sorted(sorted(np.flatnonzero(present_K).tolist(), key=lambda k: -errors_K[k])[:MAX_CLASSES])
    true_K = np.maximum(matrix_KK.sum(axis=1), 1)
    names = {k: elided(classes[k], MAX_NAME_WIDTH, FONT_SIZE) for k in shown}
    name_width = max((font(FONT_SIZE, name).getlength(name) for name in names.values()), default=0)
    left, top = round(1.4 * name_width) + NUMBER, NUMBER
    side = CELL * len(shown)
    parts = [element("rect", x=left, y=top, width=side - 1, height=side - 1, class_="ground")]
    for row, i in enumerate(shown):
        middle, across = top + CELL * row + 11, left + CELL * row + 11
        tooltip = [element("title", classes[i])] if names[i] != classes[i] else []
        parts.append(element("text", names[i], *tooltip, x=left - NUMBER, y=middle, text_anchor="end"))
        parts.append(element("text", i, x=left - 4, y=middle, text_anchor="end"))
        parts.append(element("text", i, x=across, y=top - 4, transform=f"rotate(-90 {across} {top - 4})"))
        for column, j in enumerate(shown):
            if matrix_KK[i, j]:
                share = matrix_KK[i, j] / true_K[i]
                label = (
                    f"{classes[i]} forecast as {classes[j]}: {share:.1%} "
                    f"({pluralize(matrix_KK[i, j], 'pixel', commas=True)})"
                )
                cell = {"x": left + CELL * column, "y": top + CELL * row, "width": CELL - 1, "height": CELL - 1}
                kind = "cell" if i == j else "cell cell-off"
                opacity = f"{max(share**0.5, 0.08):.2f}"
                parts.append(element("rect", element("title", label), **cell, class_=kind, fill_opacity=opacity))
    label = f"Confusion matrix at frame {frame}; the most frequent errors are listed above"
    width, height = left + side, top + side
    size = {"width": width, "height": height, "viewBox": f"0 0 {width} {height}"}
    chart = element("svg", *parts, **size, role="img", aria_label=label)
    left_out = "" if len(shown) == present_K.sum() else f" The {MAX_CLASSES} classes with the most errors."
    caption = (
        "Rows are true classes, columns forecast classes, by number. Blue is right, orange is wrong; the opacity "
        "of a cell is the square root of its share of the row, so that small errors are visible."
        f"{left_out}"
    )
    return element("figure", element("figcaption", caption), scrolling("Confusion matrix", chart))


def _share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%}"
