"""Trains the completion of cut objects on whole ones, of which a border or another object hides a part.

Shapes: M observations, T frames, K classes, H height, W width, S side of a window in cells.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from maskcast.dry_run_notes import FullLoop, is_dry_run, limited_range
from maskcast.labels import IGNORE
from maskcast.models.objects.completion import Completion, is_cut, windows
from maskcast.models.objects.tracks import pack_tracks, track_objects
from maskcast.models.optimizers import AdamW
from maskcast.progress import say, track

# shares of the observations cut by a border and by another object; the others stay whole
BORDER, OBJECT = 0.4, 0.4
BEHIND = 0.25  # share of the other objects that lie behind and hide nothing
CORRUPTED = 0.5  # share of the observations with errors like a masker's
MAX_SPECKS, MAX_SPECK_RADIUS = 4, 4  # of specks of background or other classes; the radius in pixels
FRAMES = 4  # frames per clip that are cut
MIN_PART_PIXELS, MIN_OBJECT_PIXELS = 8, 60  # least pixels of a visible part, and of a whole object
OTHER_IDS = 1, 2  # ids for the hiding object; any class but the object's own will do
HELD_OUT = 10  # each n-th observation is held out, to test whether completion helps
STEPS, BATCH, RATE, WARM_UP_STEPS = 1000, 64, 3e-3, 50
SEED = 3  # random seed for the order of training observations
MIN_EXAMPLES = 10  # a class with so few whole observations is not learned


class CutObservations(NamedTuple):
    """The visible parts of objects, and the whole objects that they belong to."""

    window_M3SS: Tensor  # bool
    class_M: Tensor
    centre_M2: Tensor
    std_M2: Tensor
    whole_centre_M2: Tensor
    whole_std_M2: Tensor

    def pick(self, some: Tensor) -> "CutObservations":
        """Returns the observations at some indices."""
        return CutObservations(*(field[some] for field in self))


def cut_observations(ids_THW: np.ndarray, num_classes: int, random: np.random.Generator) -> CutObservations | None:
    """Cuts the whole objects in some frames of a clip's masks; returns None if there are none."""
    ids_FHW = ids_THW[random.choice(len(ids_THW), min(FRAMES, len(ids_THW)), replace=False)]
    packed_FS8 = pack_tracks(torch.from_numpy(ids_FHW), num_classes)
    pictures, wholes = [], []
    for frame, slot in _whole_objects(ids_FHW, packed_FS8).tolist():
        class_id = int(packed_FS8[frame, slot, 0])
        if np.count_nonzero(ids_FHW[frame] == class_id) < MIN_OBJECT_PIXELS:
            continue
        cut_HW = _corrupted(_cut_object(ids_FHW[frame], class_id, random), class_id, random)
        if np.count_nonzero(cut_HW == class_id) >= MIN_PART_PIXELS:
            pictures.append(cut_HW)
            wholes.append(packed_FS8[frame, slot])
    if not pictures:
        return None
    ids_MHW, whole_M8 = torch.from_numpy(np.stack(pictures)), torch.stack(wholes)
    class_M = whole_M8[:, 0].long()
    own_MHW = ids_MHW * (ids_MHW == class_M[:, None, None])
    seen = track_objects(own_MHW[:, None], class_M[:, None])
    observations = class_M, seen.centre_BTN2[:, 0, 0], seen.std_BTN2[:, 0, 0]
    window = windows(ids_MHW, torch.arange(len(class_M)), *observations)
    return CutObservations(window, *observations, whole_M8[:, 2:4], whole_M8[:, 4:6]).pick(is_cut(window))


def train_completion(completion: Completion, examples: Sequence[CutObservations]) -> None:
    """Trains the completion; without enough examples, or if it does not help, it is left unchanged.

    The loss of an observation is the negative log-likelihood of the centre under a Laplace distribution, plus the
    errors of centre and log size in units of the object's size.
    """
    if not examples:
        return
    observations = CutObservations(*map(torch.cat, zip(*examples, strict=True)))
    held_out = torch.arange(len(observations.class_M)) % HELD_OUT == 0
    training, validation = observations.pick(~held_out), observations.pick(held_out)
    if len(training.class_M) < (1 if is_dry_run() else BATCH):
        return
    generator = torch.Generator().manual_seed(SEED)
    completion.requires_grad_(True)
    optimizer = AdamW(completion.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARM_UP_STEPS) * (1 + math.cos(math.pi * step / STEPS)) / 2
    )
    for _ in track(limited_range(STEPS), "completing cut objects", of=FullLoop(STEPS)):
        batch = training.pick(torch.randint(len(training.class_M), (BATCH,), generator=generator))
        centre, std, scale = completion(*batch[:4])
        unit = batch.whole_std_M2.mean(-1, keepdim=True)
        error = (centre - batch.whole_centre_M2).abs()
        nll = error / scale + (scale / unit).log()
        loss = (nll + 5 * error / unit + (std / batch.whole_std_M2).log().abs()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    completion.requires_grad_(False)
    centres = validation.centre_M2, completion(*validation[:4])[0]
    before, after = (_error(validation, centre_M2) for centre_M2 in centres)
    summary = f"the centre's error falls from {before:.3f} to {after:.3f} of an object's size"
    say(f"completing cut objects: learned from {len(training.class_M)}; {summary}")
    if is_dry_run():  # a few steps would not help, but completion has to be timed
        completion.known_K.fill_(True)
    elif after < before:
        num_classes = len(completion.known_K)
        count_K = torch.bincount(observations.class_M % num_classes, minlength=num_classes)
        completion.known_K |= count_K > MIN_EXAMPLES


def _error(observations: CutObservations, centre_M2: Tensor) -> float:
    """Returns the mean error of centres in units of the objects' sizes."""
    missed = (centre_M2 - observations.whole_centre_M2).norm(dim=-1) / observations.whole_std_M2.mean(-1)
    return float(missed.mean())


def _whole_objects(ids_FHW: np.ndarray, packed_FS8: Tensor) -> Tensor:
    """Returns frame and slot (M, 2) of the whole observations."""
    sight_M2 = (packed_FS8[..., 1] > 0).nonzero()
    packed_M8 = packed_FS8[sight_M2[:, 0], sight_M2[:, 1]]
    observations = packed_M8[:, 0].long(), packed_M8[:, 2:4], packed_M8[:, 4:6]
    cut_M = is_cut(windows(torch.from_numpy(ids_FHW), sight_M2[:, 0], *observations)) | (packed_M8[:, 6] > 0)
    return sight_M2[~cut_M]


def _cut_object(ids_HW: np.ndarray, class_id: int, random: np.random.Generator) -> np.ndarray:
    """Returns a frame in which a border cuts an object, or another object covers or touches it."""
    draw = random.random()
    if draw > BORDER + OBJECT:
        return ids_HW
    cut_HW = ids_HW.copy()
    places = y, x = np.nonzero(ids_HW == class_id)
    if draw < BORDER:
        axis, share = int(random.integers(2)), 0.95 * random.random() ** 0.8
        first, last = int(places[axis].min()), int(places[axis].max())
        hidden = round(share * (last - first + 1))
        lines = slice(first + hidden) if random.random() < 0.5 else slice(last + 1 - hidden, None)
        cut_HW.swapaxes(0, axis)[lines] = IGNORE
        return cut_HW
    # the ids of all classes; unlabelled pixels are no object
    other = random.choice(np.flatnonzero(np.bincount(ids_HW.flat)[1:IGNORE])) + 1
    other_y, other_x = np.nonzero(ids_HW == other)
    angle, distance = random.uniform(0, 2 * math.pi), random.uniform(0.6, 2.2)
    down = distance * (y.std() + other_y.std()) * math.sin(angle) + y.mean() - other_y.mean()
    right = distance * (x.std() + other_x.std()) * math.cos(angle) + x.mean() - other_x.mean()
    other_y, other_x = other_y + round(down), other_x + round(right)
    inside = (other_y >= 0) & (other_y < len(ids_HW)) & (other_x >= 0) & (other_x < ids_HW.shape[1])
    occluder_HW = np.zeros(ids_HW.shape, bool)
    occluder_HW[other_y[inside], other_x[inside]] = True
    if random.random() < BEHIND:
        occluder_HW &= ids_HW != class_id
    cut_HW[occluder_HW] = OTHER_IDS[class_id == OTHER_IDS[0]]
    return cut_HW


def _corrupted(ids_HW: np.ndarray, class_id: int, random: np.random.Generator) -> np.ndarray:
    """Returns a frame with errors like a masker's: the object is eroded or dilated, and specks lie around it."""
    if random.random() > CORRUPTED or not (ids_HW == class_id).any():
        return ids_HW
    corrupted_HW, cross = ids_HW.copy(), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    own_HW = (ids_HW == class_id).astype(np.uint8)
    edge = random.integers(3)
    if edge == 1:
        corrupted_HW[(own_HW > 0) & (cv2.erode(own_HW, cross) == 0)] = 0
    if edge == 2:
        corrupted_HW[(cv2.dilate(own_HW, cross) > 0) & (ids_HW == 0)] = class_id
    y, x = np.nonzero(own_HW)
    for _ in range(random.integers(MAX_SPECKS + 1)):
        pixel = random.integers(len(y))
        place = (x[pixel] + random.normal() * x.std() / 2, y[pixel] + random.normal() * y.std() / 2)
        center = (round(float(place[0])), round(float(place[1])))
        speck_id = int(random.integers(2)) * OTHER_IDS[class_id == OTHER_IDS[0]]
        cv2.circle(corrupted_HW, center, int(random.integers(MAX_SPECK_RADIUS)), speck_id, -1)
    corrupted_HW[ids_HW == IGNORE] = IGNORE
    return corrupted_HW
