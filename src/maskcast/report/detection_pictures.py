"""Pictures for a detector's evaluation: truth and detections side by side, from the best image to the worst.

Legend: H height, W width, C = 3 channels (RGB), uint8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from faster_coco_eval.core import mask as rle
from PIL import Image, ImageDraw

from maskcast.data.clip_store.frame_index import spread
from maskcast.data.coco.records import Records
from maskcast.data.images import read_image, resize_masks
from maskcast.evaluation.coco.evaluator import CocoScores, Kind, Record
from maskcast.evaluation.coco.matches import Matches
from maskcast.evaluation.definitions import IOU
from maskcast.report.overlays import Row, grid, stack_vertically
from maskcast.report.paint import INK, PAPER, Entry, font, single_line

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom
PANEL_WIDTH = 480  # pixels
LABEL_STEPS = 12  # maximum shift of a label, in label heights
DASH = 6  # pixels: length of a dash, and of the gap after it
# Blue, orange and yellow also differ for colour-blind readers.
FOUND, MISSED, FALSE_ALARM, CROWD = (66, 165, 245), (255, 143, 0), (255, 238, 88), (189, 189, 189)
COLOURS: tuple[Entry, ...] = (
    ("found", FOUND),
    ("missed, dashed", MISSED),
    ("false alarm", FALSE_ALARM),
    ("crowd, may be found or not", CROWD),
)


@dataclass(frozen=True)
class _Shape:
    """A box or mask to draw on an image."""

    record: Record
    colour: tuple[int, int, int]
    text: str


def draw_images(folder: Path, scores: CocoScores, matches: Matches, images: Path, count: int) -> None:
    """Draws images, evenly spaced by rank from the best to the worst F1.

    Writes `pictures/<rank>_<image id>.png`, and the best and the worst together to `pictures.png`.

    Args:
        folder: Folder of the report.
        scores: Scores of the detections.
        matches: Which detections are correct.
        images: Folder of the images (`file_name` in the truth).
        count: Number of images to draw.

    Raises:
        MaskcastError: An image has no `file_name`, or one outside the folder, is missing or cannot be read.
    """
    records = Records("images of the ground truth", scores.truth.images)
    records.texts("file_name", "needed for pictures")
    best_first = (-matches.f1_I).argsort(kind="stable")
    drawn = []
    (folder / "pictures").mkdir()
    for rank, i in enumerate(spread(best_first.tolist(), count), start=1):
        sheet = _sheet(scores, matches, i, read_image(images / records.find_image(i, images)))
        sheet.save(folder / "pictures" / f"{rank:02d}_{scores.truth.images[i]['id']}.png")
        drawn.append(sheet)
    stack_vertically(drawn if len(drawn) < 2 else [drawn[0], drawn[-1]]).save(folder / "pictures.png")


def _sheet(scores: CocoScores, matches: Matches, i: int, image_HWC: np.ndarray) -> Image.Image:
    image = scores.truth.images[i]
    names = {category["id"]: single_line(category["name"]) for category in scores.truth.categories}
    truths = [
        _Shape(
            record,
            CROWD if record.get("iscrowd") else FOUND if matches.matched_G[g] else MISSED,
            f"{names[record['category_id']]}{' (crowd)' if record.get('iscrowd') else ''}",
        )
        for g, record in enumerate(scores.truth.annotations)
        if record["image_id"] == image["id"]
    ]
    detections = [
        _Shape(
            record,
            FOUND if matches.true_positive_D[d] else FALSE_ALARM if matches.false_positive_D[d] else CROWD,
            f"{names[record['category_id']]} {record['score']:.2f}",
        )
        for d, record in enumerate(scores.detections)
        if record["image_id"] == image["id"] and record["score"] >= matches.threshold
    ]
    cells = [_draw_shapes(image_HWC, shapes, scores.kind) for shapes in (truths, detections)]
    captions = [
        f"truth: {matches.true_positives_I[i]} found (blue), {matches.false_negatives_I[i]} missed (dashed)",
        f"detections: {matches.false_positives_I[i]} false alarms (yellow)",
    ]
    title = (
        f"{image['file_name']} · F1 {matches.f1_I[i]:.3f} at IoU {IOU:.2f}, score {matches.threshold:.2f} and more"
    )
    return grid([Row("", cells, captions)], title, (PANEL_WIDTH, PANEL_WIDTH))


def _draw_shapes(image_HWC: np.ndarray, shapes: Sequence[_Shape], kind: Kind) -> np.ndarray:
    """Returns the image, scaled to `PANEL_WIDTH`, with boxes or masks drawn on it, (H, W, C)."""
    scale = PANEL_WIDTH / image_HWC.shape[1]
    size = (PANEL_WIDTH, max(1, round(scale * image_HWC.shape[0])))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    panel_HWC = cv2.resize(image_HWC, size, interpolation=method)
    boxes = []
    for shape in shapes:
        if kind == "bbox":
            left, top, width, height = box = scale * np.array(shape.record["bbox"])
            region_HW = np.zeros(panel_HWC.shape[:2], np.uint8)
            corners = np.round([left, top, left + width - 1, top + height - 1]).astype(int).tolist()
            cv2.rectangle(region_HW, corners[:2], corners[2:], 1, cv2.FILLED)
        else:
            box = scale * np.array(rle.toBbox(shape.record["segmentation"]))
            region_HW = resize_masks(rle.decode(shape.record["segmentation"])[None], *size[::-1])[0]
            panel_HWC[region_HW > 0] = 0.55 * panel_HWC[region_HW > 0] + 0.45 * np.array(shape.colour)
        boxes.append(box)
        _draw_contours(panel_HWC, region_HW, shape.colour)
    panel = Image.fromarray(panel_HWC)
    draw = ImageDraw.Draw(panel)
    taken: list[Rectangle] = []
    for shape, (left, top, _, _) in zip(shapes, boxes, strict=True):
        label_font = font(11, shape.text)
        x, y = max(left, 0) + 3, max(top, 12)
        wanted = draw.textbbox((x, y), shape.text, label_font, anchor="lb")
        position = _free_position(wanted, taken, panel.size)
        taken.append(position)
        draw.rectangle(position, fill=PAPER)
        corner = x + position[0] - wanted[0], y + position[1] - wanted[1]
        draw.text(corner, shape.text, INK, label_font, anchor="lb")
    return np.asarray(panel)


def _draw_contours(panel_HWC: np.ndarray, region_HW: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draws the contours of a region, dashed if it was missed, with a dark rim that sets them off from images."""
    lines_HW = np.zeros_like(region_HW)
    for contour in cv2.findContours(region_HW, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]:
        points_P2 = contour[:, 0]
        if colour == MISSED:
            points_P2 = points_P2[np.arange(len(points_P2)) % (2 * DASH) < DASH]
        lines_HW[points_P2[:, 1], points_P2[:, 0]] = 1
    lines_HW = cv2.dilate(lines_HW, np.ones((2, 2), np.uint8))
    panel_HWC[cv2.dilate(lines_HW, np.ones((3, 3), np.uint8)) > 0] = PAPER
    panel_HWC[lines_HW > 0] = colour


def _free_position(wanted: Rectangle, taken: Sequence[Rectangle], size: tuple[int, int]) -> Rectangle:
    """Returns the position of a label in a panel: the nearest to the wanted one, up or down, that covers no other.

    If all positions are taken, it is the wanted one.

    Args:
        wanted: left, top, right and bottom.
        taken: positions of other labels.
        size: width and height of the panel.
    """
    left, top, right, bottom = wanted
    width, height = right - left, bottom - top
    left = max(0, min(left, size[0] - 1 - width))
    tops = [top + sign * step * (height + 1) for step in range(LABEL_STEPS) for sign in (1, -1)]
    for candidate_top in tops:
        position = left, candidate_top, left + width, candidate_top + height
        if 0 <= candidate_top <= size[1] - 1 - height and not any(_overlap(position, other) for other in taken):
            return position
    return left, top, left + width, bottom


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
