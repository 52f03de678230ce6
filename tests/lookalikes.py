"""Small folders that look like data sets of users."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tests.conftest import moving_squares
from tests.videos import encode_frames

HEIGHT, WIDTH = 40, 64
PALETTE = [0, 0, 0, 200, 0, 0, 0, 0, 200]


def frames_of(seed: int, count: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> tuple[np.ndarray, np.ndarray]:
    return moving_squares(seed, count, *size)


def write_images(folder: Path, images: np.ndarray, name: str, first: int = 0, *, indexed: bool = False) -> None:
    """Writes images under names with a number, e.g. `{:05d}.png`; ``indexed`` ones have a palette."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, pixels in enumerate(images, first):
        image = Image.fromarray(pixels)
        if indexed:
            image.putpalette(PALETTE)
        image.save(folder / name.format(k))


def write_mp4(path: Path, frames: np.ndarray) -> None:
    encode_frames(path, frames, rate=24, codec_options={"crf": "10"})


def davis(
    root: Path, sequences: int = 4, labelled: int = 4, length: int = 24, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> None:
    """Writes DAVIS's form: JPEG frames, masks of 0 and 255."""
    for k in range(sequences):
        frames, masks = frames_of(k, length, size)
        write_images(root / f"JPEGImages/480p/seq-{k}", frames, "{:05d}.jpg")
        if k < labelled:
            write_images(root / f"Annotations/480p/seq-{k}", (masks > 0) * np.uint8(255), "{:05d}.png")


def photographs(
    root: Path,
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]] = ((HEIGHT, WIDTH), (WIDTH, HEIGHT)),
    ending: str = "",
    folder: str = "",
) -> None:
    """Writes an image and a mask of 0 and 255 of each name, of the sizes in turn, in ``images`` and ``masks``."""
    for k, name in enumerate(names):
        frames, masks = frames_of(k, 1, sizes[k % len(sizes)])
        write_images(root / f"images{folder}", frames, f"{name}.jpg")
        write_images(root / f"masks{folder}", (masks > 0) * np.uint8(255), f"{name}{ending}.png")


def camvid(root: Path) -> None:
    """Writes CamVid's form: all frames in one folder, the sequence in their names, masks that end in _L."""
    for k, name in enumerate(("0001TP", "0006R0", "Seq05VD")):
        frames, masks = frames_of(k, 24)
        number = name + ("_f{:05d}" if name.startswith("Seq") else "_{:06d}")
        write_images(root / "701_StillsRaw_full", frames, f"{number}.png", 30)
        write_images(root / "LabeledApproved_full", masks, f"{number}_L.png", 30, indexed=True)


def segnet_camvid(root: Path) -> None:
    """Writes the form of CamVid in SegNet's tutorial: folders named after splits, masks beside them."""
    for k, split in enumerate(("train", "val", "test")):
        frames, masks = frames_of(k, 24)
        write_images(root / split, frames, "0001TP_{:06d}.png")
        write_images(root / f"{split}annot", masks, "0001TP_{:06d}.png")


def sequence_folders(root: Path) -> None:
    """Writes a folder for each sequence, with frames and masks in it."""
    for k in range(3):
        frames, masks = frames_of(k, 24)
        write_images(root / f"take {k}/images", frames, "frame_{:04d}.png", 1)
        write_images(root / f"take {k}/labels", masks, "mask_{:04d}.png", 1)


def cityscapes(root: Path) -> None:
    """Writes Cityscapes' form: long names that differ between frames and masks."""
    for k, city in enumerate(("aachen", "bonn", "ulm")):
        frames, masks = frames_of(k, 24)
        name = city + "_000000_{:06d}"
        write_images(root / f"leftImg8bit/train/{city}", frames, f"{name}_leftImg8bit.png")
        write_images(root / f"gtFine/train/{city}", masks, f"{name}_gtFine_labelIds.png")


def one_sequence(root: Path) -> None:
    """Writes a folder of frames and one of masks, and nothing else."""
    frames, masks = frames_of(0, 60)
    write_images(root / "frames", frames, "{:04d}.png", 1)
    write_images(root / "masks", masks, "{:04d}.png", 1)


def plain_videos(root: Path) -> None:
    for k in range(2):
        write_mp4(root / f"day {k}" / "clip.mp4", frames_of(k, 30)[0])


def mixed(root: Path) -> None:
    """Writes six videos, of which two have masks, numbered from 1."""
    for k in range(6):
        frames, masks = frames_of(k, 24)
        write_mp4(root / f"videos/street-{k}.mp4", frames)
        if k in (1, 4):
            write_images(root / f"masks/street-{k}", masks, "{:05d}.png", 1)


def competition(root: Path) -> None:
    number = 0
    for split, count in {"train": 2, "val": 1, "unlabeled": 2, "hidden": 1}.items():
        for _ in range(count):
            length = 11 if split == "hidden" else 22
            frames, masks = frames_of(number, length)
            folder = root / split / "data" / f"video_{number}"
            write_images(folder, frames, "image_{}.png")
            if split in ("train", "val"):
                np.save(folder / "mask.npy", masks)
            number += 1


LOOKALIKES: dict[str, Callable[[Path], None]] = {
    "davis": davis,
    "camvid": camvid,
    "segnet_camvid": segnet_camvid,
    "sequence_folders": sequence_folders,
    "cityscapes": cityscapes,
    "one_sequence": one_sequence,
    "plain_videos": plain_videos,
    "mixed": mixed,
    "competition": competition,
}
