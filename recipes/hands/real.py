"""Lays photographs of real hands as real-single.yaml and real-pairs.yaml read them.

    python recipes/hands/real.py DATA OUT

DATA holds hands_hgr1/, HGR1's photographs of one hand with masks, and hands_senz3d/, frames of people who show a
hand. Writes ``OUT/single``, all images by person with HGR1's masks, and ``OUT/pairs``, those of HGR1 alone, all of
them made smaller. It is there whole, or not at all. Masks of Senz3D lie beside their hands, so that none is taken.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from maskcast.data.images import read_image
from maskcast.errors import one_line_errors
from maskcast.files import match_files
from maskcast.runner.outputs import atomic_outputs

FOLDERS = ("single", "pairs")
PHOTOS = "hands_hgr1/dev/images"
LONGEST = 256  # pixels of the longer side


def lay(data: Path, out: Path) -> int:
    """Writes both folders; returns the number of images in ``single``."""
    photos = match_files(data / PHOTOS, "*.jpg")
    for photo in photos:
        person = photo.stem.split("_")[3]  # 1_P_hgr1_id01_2: gesture, language, set, person, number
        mask_HW = read_image(data / f"hands_hgr1/dev/masks/{photo.stem}.bmp")[..., 0] == 0  # black is skin
        for name in FOLDERS:
            _write(out / name / "images" / person / f"{photo.stem}.jpg", read_image(photo), cv2.INTER_AREA)
            hand = out / name / "hand" / person / f"{photo.stem}.png"
            _write(hand, mask_HW.astype(np.uint8), cv2.INTER_NEAREST_EXACT)
    frames = match_files(data / "hands_senz3d/unlabeled_p1-3", "*.png")
    for frame in frames:
        _write(out / "single/images/senz3d" / f"{frame.stem}.jpg", read_image(frame), cv2.INTER_AREA)
    return len(photos) + len(frames)


def _write(path: Path, picture: np.ndarray, method: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = min(1.0, LONGEST / max(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method)
    assert cv2.imwrite(str(path), small[..., ::-1] if small.ndim == 3 else small)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    if not match_files(args.data / PHOTOS, "*.jpg"):
        parser.error(f"{args.data}: has no {PHOTOS}/*.jpg; give the folder that holds hands_hgr1")
    partial = args.out.with_name(args.out.name + ".partial")
    with atomic_outputs({"out": args.out}, {"out": partial}):
        count = lay(args.data, partial)
    print(f"wrote {count} images: {args.out}")


if __name__ == "__main__":
    with one_line_errors():
        main()
