"""Page sections of a detector's evaluation: scores, categories, curves, pictures."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from maskcast.evaluation.coco.evaluator import CocoScores, Record
from maskcast.evaluation.definitions import DETECTIONS, IOU
from maskcast.markup import Html, concatenate, definition_list, element, figure, table
from maskcast.reading import pluralize
from maskcast.report.charts import line_chart
from maskcast.report.clip_player import legend
from maskcast.report.detection_files import CATEGORY_SCORES
from maskcast.report.detection_pictures import COLOURS
from maskcast.report.tables import format_score

HEADLINE = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100")
SELECTION_NOTE = (
    "These images also selected the best epoch of the training, so scores on new images are slightly lower on "
    "average."
)
_score = partial(format_score, none="n/a")


def detection_sections(
    scores: CocoScores, report: Path, split: str = "", notes: Sequence[str] = ()
) -> dict[str, Html]:
    """Returns the sections of a page of an evaluation, by title.

    Args:
        scores: scores of the detections.
        report: folder that `detection_files.write_report` wrote, with the drawn images, if there are any.
        split: split of the scored images; empty if unknown.
        notes: sentences on scores that are too high (`evaluation.notes`).
    """
    sections = {
        "Scores": _scores(scores, [*([SELECTION_NOTE] if split == "val" else []), *notes]),
        "By category": _categories(scores),
        "Precision over recall": _curves(scores),
    }
    if pictures := sorted(report.glob("pictures/*.png")):
        sections["Images"] = _images(pictures, scores.truth.images)
    return sections | {"What the scores mean": definition_list(DETECTIONS)}


def _scores(scores: CocoScores, notes: Sequence[str]) -> Html:
    counts = scores.flat()
    lead = element(
        "p",
        element("strong", f"AP {_score(scores.summary['AP'])}"),
        f", AP50 {_score(scores.summary['AP50'])}: {_count_text(counts, 'truth')} in "
        f"{_count_text(counts, 'image')}, {_count_text(counts, 'detection')}.",
    )
    row = ["detector", *(_score(scores.summary[name]) for name in HEADLINE)]
    parts = [lead, table("Scores of all categories", ["", *HEADLINE], [row])]
    return concatenate([*parts, *(element("p", note) for note in notes)])


def _count_text(counts: Mapping[str, float], what: str) -> str:
    return pluralize(round(counts[f"{what}s"]), what, commas=True)


def _categories(scores: CocoScores) -> Html:
    worst_first = sorted(scores.per_category, key=lambda category: np.nan_to_num(category.AP, nan=np.inf))
    rows = [
        [
            category.name,
            *(_score(getattr(category, name)) for name in CATEGORY_SCORES),
            f"{category.truths:,}",
            f"{category.detections:,}",
        ]
        for category in worst_first
    ]
    header = ["category", *CATEGORY_SCORES, "truths", "detections"]
    caption = "Scores of each category, worst AP first, those without truths last"
    if crowds := len(scores.truth.annotations) - sum(category.truths for category in worst_first):
        caption += f"; its truths leave out {pluralize(crowds, 'crowd', commas=True)}"
    return table(caption, header, rows)


def _curves(scores: CocoScores) -> Html:
    recall = np.linspace(0, 1, 101).tolist()
    lines = {name: list(zip(recall, curve.tolist(), strict=True)) for name, curve in scores.curves().items()}
    title = "Mean over categories"
    return line_chart(title, lines, x_label="recall", y_label="precision", y_range=(0.0, 1.0))


def _images(pictures: Sequence[Path], images: Sequence[Record]) -> Html:
    names = {str(image["id"]): str(image.get("file_name", f"image {image['id']}")) for image in images}
    lead = f"From the best image to the worst by F1 at IoU {IOU:.2f}; truth left, detections right."
    drawn = []
    for path in pictures:
        name = names[path.stem.partition("_")[2]]
        drawn.append(figure(f"{name}: truth and detections", name, path.read_bytes()))
    return concatenate([element("p", lead), legend(COLOURS, "Colours of boxes and masks"), *drawn])
