"""maskcast init: lossy or soft pictures of masks beside photographs, in folders of any name."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.lookalikes import frames_of, write_mp4

from maskcast.data.inspection.flat_images import flat_colours
from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.errors import MaskcastError

COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)
SIZE = (160, 256)


def textured(seed: int, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Returns frames with the texture of photographs, and their masks."""
    frames, masks = frames_of(seed, count, SIZE)
    texture = np.random.default_rng(seed).normal(0, 9, (*SIZE, 3))
    return (frames + cv2.GaussianBlur(texture, (3, 3), 0)).clip(0, 255).astype(np.uint8), masks


def save(path: Path, image: np.ndarray, quality: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=quality)


def soft(mask: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur((mask > 0) * np.uint8(255), (5, 5), 0)


def resized(mask: np.ndarray) -> np.ndarray:
    small = cv2.resize(COLOURS[mask], (200, 120), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
    ("frame", "mask"),
    [
        ("s{}/rgb/{:04d}.jpg", "s{}/seg/{:04d}.jpg"),
        ("s{}/rgb/{:04d}.jpg", "s{}/things/{:04d}.webp"),
        ("images/s{}/{:04d}.jpg", "semantic/s{}/{:04d}.jpg"),
        ("images/s{}_{:04d}.jpg", "colours/s{}_{:04d}.jpg"),
    ],
)
@pytest.mark.parametrize("form", [lambda mask: COLOURS[mask], resized])
def test_coloured_masks_that_lost_their_colours_are_refused_whatever_they_are_called(
    frame: str, mask: str, form: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    for k in range(2):
        for t, (image, labels) in enumerate(zip(*textured(k), strict=True)):
            save(tmp_path / frame.format(k, t), image)
            save(tmp_path / mask.format(k, t), form(labels))
    with pytest.raises(MaskcastError, match="is named like masks, or looks like them, and has the names of"):
        inspect_folder(tmp_path)


@pytest.mark.parametrize("name", ["seg", "mattes", "alpha", "roi"])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_grey_pictures_with_flat_areas_are_masks_whatever_they_are_called(
    name: str, ending: str, tmp_path: Path
) -> None:
    for k in range(2):
        for t, (image, labels) in enumerate(zip(*textured(k), strict=True)):
            save(tmp_path / f"s{k}/rgb/{t:04d}.jpg", image)
            save(tmp_path / f"s{k}/{name}/{t:04d}.{ending}", soft(labels))
    found = inspect_folder(tmp_path)
    assert found.labelled == {"s0": 24, "s1": 24}
    assert (found.source["images"], found.source["masks"]) == ("{clip}/rgb", f"{{clip}}/{name}")


def test_coloured_pictures_of_masks_beside_videos_are_no_more_videos(tmp_path: Path) -> None:
    for name in ("a", "b"):
        frames, masks = textured(ord(name))
        write_mp4(tmp_path / f"videos/{name}.mp4", frames)
        for t, labels in enumerate(masks):
            save(tmp_path / f"things/{name}/{t:05d}.jpg", COLOURS[labels])
    with pytest.raises(MaskcastError, match=r"things/a .* has the names of videos/a\.mp4"):
        inspect_folder(tmp_path)


def stretched(image: np.ndarray, contrast: int) -> np.ndarray:
    return cv2.normalize(image, image.copy(), 50, min(255, 50 + contrast), cv2.NORM_MINMAX)


PHOTOGRAPHS = {
    "left and right": lambda image: np.roll(image, 5, 1),
    "depth": lambda image: (image[..., 0] // 4 + np.indices(SIZE).sum(0) // 3).astype(np.uint8),
    "infrared": lambda image: image[..., 1],
    "dark": lambda image: image // 3,
    "overexposed": lambda image: (image.astype(int) * 2).clip(0, 255).astype(np.uint8),
    "low contrast": lambda image: stretched(cv2.GaussianBlur(image[..., 0], (5, 5), 0), 150),
    "before and after": lambda image: 255 - image,
}


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
@pytest.mark.parametrize("names", [("alpha", "beta"), ("seg_01", "seg_02"), ("SEM", "TEM"), ("before", "after")])
def test_photographs_of_a_second_kind_need_no_question(kind: str, names: tuple[str, str], tmp_path: Path) -> None:
    for t, image in enumerate(textured(1)[0]):
        save(tmp_path / f"{names[1]}/{t:04d}.jpg", image)
        save(tmp_path / f"{names[0]}/{t:04d}.jpg", PHOTOGRAPHS[kind](image))
    found = inspect_folder(tmp_path)
    assert found.sequences == dict.fromkeys(names, 24) and not found.labelled


def test_real_photographs_are_not_flat(shared_data: Path) -> None:
    files = sorted((shared_data / "davis2016_val").glob("JPEGImages/**/*.jpg"))[::40]
    assert files and not any(flat_colours((path,)) for path in files)


def test_drawings_in_folders_of_splits_are_not_masks_of_each_other(tmp_path: Path) -> None:
    for k, split in enumerate(("train", "val")):
        for t, image in enumerate(frames_of(k, 24, SIZE)[0]):
            save(tmp_path / f"{split}/{t:04d}.jpg", image // (1 + k))
    assert inspect_folder(tmp_path).sequences == {"train": 24, "val": 24}
