"""Draws the windows that a forecaster forecasts worst, with what happened to each object in them.

    python benchmarks/worst_windows.py DATA FOLDER --out worst

DATA holds CLEVRER's annotations (`simulated` draws `--clips` windows instead), FOLDER a trained forecaster.
`worst` gets `index.html`, a page with a strip and a table of each window, and `worst.png`, all strips. The causes
are those of forecast_losses.py: the truth about the world says what was hit, cut or hidden. Beside each object's
IoU stands that of the physics, and of the physics told the true velocity, or the true place and velocity, at the
last seen frame: where these are better, the forecaster did not know what it could have seen; where they are as
bad, what follows cannot be predicted from there.
"""

import argparse
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from _common import positive_int
from forecast_losses import CASES, Informed, World, add_windows, cases, worlds
from maskcast.errors import one_line_errors
from maskcast.evaluation.metrics import confusion, macro_jaccard
from maskcast.evaluation.view import ForecastView
from maskcast.markup import Html, concatenate, figure, table
from maskcast.models.forecasting import checked
from maskcast.models.forecasting.base import Predictor
from maskcast.models.forecasting.rigid_body import RigidBody
from maskcast.models.forecasting.table import load_forecaster
from maskcast.report.overlays import stack_vertically
from maskcast.report.page import document
from maskcast.report.pictures import draw_strip
from maskcast.simulator.camera import CLASSES, CLEVRER_CAMERA

OWN = "forecaster"
COLUMNS = 6  # maximum number of frames in a strip
APART = 20  # minimum distance in frames between windows of the same video


class Window(NamedTuple):
    """A window and its forecasts."""

    score: float
    world: World
    forecasts: dict[str, np.ndarray]  # (h, H, W), by name of the predictor

    def is_near(self, other: "Window") -> bool:
        """Whether two windows are nearly the same."""
        same = np.array_equal(self.world.motion.class_ids, other.world.motion.class_ids)
        return same and abs(int(self.world.frames[0]) - int(other.world.frames[0])) < APART


def forecast(world: World, predictors: dict[str, Predictor], seen: int) -> Window:
    """Forecasts a window with all predictors; the score is the forecaster's macro Jaccard at the last frame."""
    context, horizon = torch.from_numpy(world.masks_THW[None, :seen]), len(world.masks_THW) - seen
    found = {}
    for name, predictor in predictors.items():
        if isinstance(predictor, Informed):
            predictor.world = world
        found[name] = checked.forecast(predictor, context, horizon)[0].numpy()
    matrix = confusion(world.masks_THW[-1], found[OWN][-1], len(CLASSES))
    return Window(macro_jaccard(matrix, absent="omit"), world, found)


def objects(window: Window, seen: int) -> list[list[str]]:
    """Returns for each object its name, what happened to it, and its IoU at the last frame by predictor."""
    rows = []
    for k, case in cases(window.world, seen).items():
        if case == CASES[-1]:
            continue
        true_HW, ious = window.world.masks_THW[-1] == k, []
        for found in window.forecasts.values():
            either = true_HW | (found[-1] == k)
            ious.append(f"{(true_HW & (found[-1] == k)).sum() / either.sum():.2f}" if either.any() else "gone")
        rows.append([CLASSES[k], case, *ious])
    return sorted(rows, key=lambda row: row[2])


def drawn(window: Window, seen: int, rows: list[list[str]]) -> Image.Image:
    """Draws the strip of a window; the heading names the object with the greatest loss."""
    shown = {OWN: window.forecasts[OWN], "rigid_body": window.forecasts["rigid_body"]}
    view = ForecastView("", None, window.world.masks_THW[:seen], window.world.masks_THW, shown, None, CLASSES)
    title = f"Jaccard at frame {len(view.truth)}: {window.score:.3f} · {rows[0][0]}: {rows[0][1]}"
    return draw_strip(view, title, COLUMNS)


def section(window: Window, strip: Image.Image, rows: list[list[str]]) -> Html:
    """Returns the page section of a window."""
    file = BytesIO()
    strip.save(file, "PNG", optimize=True)
    header = ["object", "what happens to it", *window.forecasts]
    caption = "Seen, true and forecast masks, and where the forecast is wrong"
    sheet = figure(caption, caption, file.getvalue())
    return concatenate([sheet, table("IoU of each object at the last frame", header, rows)])


def main() -> None:
    """Forecasts all windows and draws the worst."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_windows(parser)
    parser.add_argument("forecaster", type=Path, help="folder of a trained forecaster")
    parser.add_argument("--out", type=Path, default=Path("worst"), help="folder that is made")
    parser.add_argument("--windows", type=positive_int, default=8, help="how many are drawn")
    args = parser.parse_args()
    seen, horizon = args.frames
    physics = CLEVRER_CAMERA, args.stride
    predictors: dict[str, Predictor] = {
        OWN: load_forecaster(args.forecaster)[0],
        "rigid_body": RigidBody(*physics),
    }
    predictors["told the velocity"] = Informed(*physics, seen, place=False)
    predictors["and the place"] = Informed(*physics, seen, place=True)
    every = worlds(args.data, args.clips, args.stride, args.step, seen + horizon, tuple(args.size))
    worst: list[Window] = []
    for window in sorted((forecast(world, predictors, seen) for world in every), key=lambda one: one.score):
        if len(worst) < args.windows and not any(map(window.is_near, worst)):
            worst.append(window)
    args.out.mkdir(parents=True, exist_ok=True)
    sections, strips = {}, []
    for place, window in enumerate(worst, start=1):
        rows = objects(window, seen)
        strips.append(drawn(window, seen, rows))
        title = f"{place}: Jaccard {window.score:.3f}, from frame {window.world.frames[0]} of the video"
        sections[title] = section(window, strips[-1], rows)
    (args.out / "index.html").write_text(document("Worst windows", sections), encoding="utf-8")
    stack_vertically(strips).save(args.out / "worst.png")
    print(f"{args.out / 'index.html'}: the worst {len(worst)} windows")


if __name__ == "__main__":
    with one_line_errors():
        main()
