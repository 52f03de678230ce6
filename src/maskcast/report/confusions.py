"""Which classes are taken for which, on a page: the worst as a list, all of them as a heat map.

Legend: K classes; a matrix M_KK has rows = target class, columns = forecast class, in pixels.
"""

from collections.abc import Sequence

import numpy as np

from maskcast.evaluation.scores import ForecastScores
from maskcast.markup import Html, element, joined, scrolling, table

LISTED = 12  # pairs of classes
MOST_CLASSES = 60  # of the heat map; more would not be readable
CELL, GUTTER = 16, 190  # pixels of the heat map: side of a cell, width of the class names


def confusions(scores: ForecastScores, classes: Sequence[str]) -> Html:
    """Returns what is confused at the last forecast frame: in words, as a list, and all of it as a heat map."""
    matrix_KK = scores.matrix_hKK[-1]
    wrong_KK = matrix_KK * ~np.eye(len(classes), dtype=bool)
    true_K = matrix_KK.sum(axis=1)
    frame = scores.frame_numbers[-1]
    objects = int(true_K[1:].sum())
    lead = element(
        "p",
        f"Of {objects:,} object pixels of frame {frame}, {_share(wrong_KK[1:, 0].sum(), objects)} were missed and "
        f"{_share(wrong_KK[1:, 1:].sum(), objects)} forecast as another class. Of {true_K[0]:,} background pixels "
        f"{_share(wrong_KK[0].sum(), true_K[0])} were forecast as objects.",
    )
    among_objects = [(i, j) for i in range(1, len(classes)) for j in range(1, len(classes)) if wrong_KK[i, j]]
    rows = [
        [classes[i], classes[j], f"{wrong_KK[i, j]:,}", _share(wrong_KK[i, j], true_K[i])]
        for i, j in sorted(among_objects, key=lambda pair: -wrong_KK[pair])[:LISTED]
    ]
    header = ["truth", "forecast as", "pixels", "of the true class"]
    listed = table("Objects forecast as other objects, most pixels first", header, rows)
    return joined([lead, *([listed] if rows else []), _heat_map(matrix_KK, wrong_KK, classes, frame)])


def _heat_map(matrix_KK: np.ndarray, wrong_KK: np.ndarray, classes: Sequence[str], frame: int) -> Html:
    there_K = (matrix_KK.sum(axis=0) + matrix_KK.sum(axis=1)) > 0
    errors_K = wrong_KK.sum(axis=0) + wrong_KK.sum(axis=1)
    shown = sorted(sorted(np.flatnonzero(there_K).tolist(), key=lambda k: -errors_K[k])[:MOST_CLASSES])
    true_K = np.maximum(matrix_KK.sum(axis=1), 1)
    parts: list[Html] = []
    for row, i in enumerate(shown):
        middle = CELL * (row + 1) + 12
        parts.append(element("text", f"{classes[i]} {i}", x=GUTTER - 6, y=middle, text_anchor="end"))
        parts.append(element("text", i, x=GUTTER + CELL * row + CELL / 2, y=10, text_anchor="middle"))
        for column, j in enumerate(shown):
            if matrix_KK[i, j]:
                share = matrix_KK[i, j] / true_K[i]
                said = f"{classes[i]} forecast as {classes[j]}: {share:.1%} ({matrix_KK[i, j]:,} pixels)"
                place = {"x": GUTTER + CELL * column, "y": CELL * (row + 1), "width": CELL - 1, "height": CELL - 1}
                kind = "cell" if i == j else "cell cell-off"
                opacity = f"{max(share**0.5, 0.08):.2f}"
                parts.append(element("rect", element("title", said), **place, class_=kind, fill_opacity=opacity))
    width, height = GUTTER + CELL * len(shown) + 1, CELL * (len(shown) + 1) + 1
    said = f"Confusion matrix at frame {frame}; its greatest errors stand above"
    chart = element("svg", *parts, width=width, height=height, role="img", aria_label=said)
    left_out = "" if len(shown) == there_K.sum() else f" The {MOST_CLASSES} classes with the most errors."
    caption = (
        "Rows are true classes, columns what they were forecast as, by number; the stronger a cell, the greater "
        f"its share of the row (its square root, so that small errors show).{left_out}"
    )
    return element("figure", element("figcaption", caption), scrolling("Confusion matrix", chart))


def _share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%}"
