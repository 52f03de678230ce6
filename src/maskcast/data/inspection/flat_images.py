"""Recognises pictures of masks that are no exact masks: lossy, resized or with soft edges, in any colours.

Such a picture consists of areas of one colour. Photographs do not, not even dark or grey ones.
"""

from contextlib import suppress
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.images import read_image
from maskcast.data.masks.survey import JPEG_TOLERANCE, MAX_LABEL_VALUES
from maskcast.errors import MaskcastError

NUM_SAMPLES = 3  # number of images that are inspected
MIN_FLAT_SHARE = 0.5  # of all pixels; real photographs, videos and grey versions of them have up to 0.5, most 0.1
MIN_TONE_SHARE = 0.9  # of pixels in areas, those of the few colours; real photographs have up to 0.8, most 0.5
SAME_COLOUR = 12.0  # grey levels: what JPEG changes, and no other picture is as near
TONE_TOLERANCE = 2  # how far JPEG changes the colour of an area


def flat_colours(files: tuple[Path, ...]) -> list[np.ndarray]:
    """Returns the colours (3,) of the areas in pictures of masks; nothing if a picture does not look so."""
    found: list[np.ndarray] = []
    for number in evenly_spaced(len(files), NUM_SAMPLES):
        try:
            tones = _tones(read_image(files[number]))
        except MaskcastError:
            return []
        if not tones:
            return []
        found += tones
    apart = max((int(np.abs(one - found[0]).max()) for one in found), default=0)
    return found if apart > JPEG_TOLERANCE else []  # dark pictures have areas, too


def have_texture(files: tuple[Path, ...]) -> bool:
    """Whether images are no drawings: at most half of the pixels of each equal their neighbours."""
    for number in evenly_spaced(len(files), NUM_SAMPLES):
        with suppress(MaskcastError):
            if _areas(read_image(files[number]).astype(np.int32)).mean() > MIN_FLAT_SHARE:
                return False
    return True


def _areas(pixels_HWC: np.ndarray) -> np.ndarray:
    """Returns which pixels, but those of the first row and column, equal those before and above, (H, W) bool."""
    here_HWC = pixels_HWC[1:, 1:]
    return ((here_HWC == pixels_HWC[:-1, 1:]) & (here_HWC == pixels_HWC[1:, :-1])).all(-1)


def _tones(image_HWC: np.ndarray) -> list[np.ndarray]:
    """Returns the most frequent colours of areas, if areas are most of the image and have few; else none."""
    pixels_HWC = image_HWC.astype(np.int32)
    flat_HW = _areas(pixels_HWC)
    if flat_HW.size == 0 or flat_HW.mean() <= MIN_FLAT_SHARE:
        return []
    colours_NC, counts_N = np.unique(pixels_HWC[1:, 1:][flat_HW] @ (1 << np.array([16, 8, 0])), return_counts=True)
    colours_NC = np.stack([colours_NC >> 16, colours_NC >> 8 & 255, colours_NC & 255], -1)
    left_N, tones, near = counts_N.copy(), list[np.ndarray](), 0
    while len(tones) < MAX_LABEL_VALUES and left_N.any():
        tones.append(colours_NC[left_N.argmax()])
        distance_N = np.abs(colours_NC - tones[-1]).max(-1)
        near += int(left_N[distance_N <= TONE_TOLERANCE].sum())
        left_N[distance_N <= SAME_COLOUR] = 0  # in blurred pictures, areas of a JPEG block differ by little
    return tones if near >= MIN_TONE_SHARE * counts_N.sum() else []
