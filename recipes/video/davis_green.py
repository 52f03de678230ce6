"""Puts the objects of DAVIS 2016 in front of a green screen, and prints how well each key finds them.

    python recipes/video/davis_green.py --davis FOLDER [--raw recipes/video/data/davis]

What it writes is a raw folder of the layout `green_screen`: `videos`, true `mattes`, and `backgrounds`, which are
the same places with their object painted over by what is around it. `davis.yaml` prepares clips of it.

Shapes: T frames, H rows, W columns, C = 3 channels (RGB).
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from maskcast.data.chroma import BoundsKey, SoftKey
from maskcast.data.images import image_files, read_frames, resize_frames
from maskcast.errors import MaskcastError, one_line_errors
from maskcast.files import match_files
from maskcast.seed import rng
from maskcast.simulator.figures import SPILL, draw_screen

HERE = Path(__file__).resolve().parent
SIZE = (240, 428)
COARSE = 4  # the object is inpainted at a quarter of the size
MARGIN = 3  # pixels around an object that may contain parts of it


def main() -> None:
    """Writes the folder and prints the table of the keys."""
    parser = argparse.ArgumentParser(description="green-screen clips of the objects of DAVIS 2016")
    parser.add_argument(
        "--davis", type=Path, required=True, help="folder with JPEGImages/480p and Annotations/480p"
    )
    parser.add_argument("--raw", type=Path, default=HERE / "data/davis", help="folder to write")
    args = parser.parse_args()
    places = [path for path in match_files(args.davis, "JPEGImages/480p/*") if path.is_dir()]
    if not places:
        raise MaskcastError(f"{args.davis}: has no JPEGImages/480p; give the root of DAVIS 2016")
    rows = []
    for number, place in enumerate(places):
        frames = resize_frames(read_frames(image_files(place)), *SIZE)
        masks = resize_frames(read_frames(image_files(args.davis / "Annotations/480p" / place.name)), *SIZE)[
            ..., 1
        ]
        green = in_front_of_green(frames, masks, number)
        for what, pictures, ending in (
            ("videos", green, ".jpg"),
            ("mattes", masks, ".png"),
            ("backgrounds", np.stack([painted_over(*pair) for pair in zip(frames, masks, strict=True)]), ".jpg"),
        ):
            write(args.raw / what / place.name, pictures, ending)
        errors = [
            1000 * np.abs(key(green).alpha_THW.astype(int) - masks).mean() / 255
            for key in (BoundsKey(), SoftKey())
        ]
        rows.append((place.name, *errors))
    print("| sequence | MAD of bounds, thousandths | MAD of soft, thousandths |\n|---|---|---|")
    for name, bounds, soft in (*rows, ("mean", *np.mean([row[1:] for row in rows], axis=0))):
        print(f"| {name} | {bounds:.1f} | {soft:.1f} |")


def in_front_of_green(frames_THWC: np.ndarray, masks_THW: np.ndarray, seed: int) -> np.ndarray:
    """Returns the objects in front of a green screen, with its spill and camera noise, uint8."""
    random = rng(seed)
    screen_HWC = draw_screen(random, *masks_THW.shape[1:])
    alpha_THW1 = masks_THW[..., None] / np.float32(255)
    lit_THWC = (1 - SPILL) * frames_THWC + SPILL * screen_HWC.mean((0, 1))
    shot_THWC = alpha_THW1 * lit_THWC + (1 - alpha_THW1) * screen_HWC
    noise_THWC = 2 * random.standard_normal(shot_THWC.shape, np.float32)
    return np.asarray((shot_THWC + noise_THWC).round().clip(0, 255).astype(np.uint8))


def painted_over(frame_HWC: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
    """Returns a frame with its object inpainted from the surroundings (Telea 2004)."""
    height, width = mask_HW.shape
    coarse = (width // COARSE, height // COARSE)
    hole = cv2.dilate(
        (cv2.resize(mask_HW, coarse, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8),
        np.ones((2 * MARGIN + 1,) * 2),
    )
    filled = cv2.inpaint(
        cv2.resize(frame_HWC, coarse, interpolation=cv2.INTER_AREA), hole, MARGIN, cv2.INPAINT_TELEA
    )
    over = cv2.resize(hole.astype(np.float32), (width, height))[..., None]
    return np.asarray(
        (over * cv2.resize(filled, (width, height)) + (1 - over) * frame_HWC).round().astype(np.uint8)
    )


def write(folder: Path, pictures: np.ndarray, ending: str) -> None:
    """Writes frames (T, H, W, C) or mattes (T, H, W)."""
    folder.mkdir(parents=True, exist_ok=True)
    for t, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{t:05d}{ending}", quality=95)


if __name__ == "__main__":
    with one_line_errors():
        main()
