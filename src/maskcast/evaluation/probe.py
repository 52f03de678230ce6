"""Evaluates a frozen encoder by kNN and a linear probe of pixel classes.

A pixel's features are the encoder's last map of the whole frame, interpolated bilinearly at the pixel. In evenly
spaced labelled frames of a split, up to ``PIXELS`` pixels of each class are drawn. Both classifiers are fitted on
the train split and scored on the val split by mean class accuracy: the fraction of correct pixels of each class in
val, averaged over these classes, background included. A class that train lacks counts as 0.

Legend: N pixels, C channels, K classes, B of N pixels, H height, W width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.clip_store.labelled_frames import TrainingIndex
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.data.clip_store.table import masks_layer
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.models.encoders.siamese import Normalised
from maskcast.models.optimizers import LBFGS
from maskcast.seed import rng

FRAMES = 300  # frames per split
PIXELS = 4  # pixels per class and frame
NEIGHBOURS = 20
TEMPERATURE = 0.07  # temperature of the neighbours' votes (Wu et al. 2018, arXiv 1805.01978)
L2_PENALTY = 1e-4  # weight of the L2 penalty of the probe
STEPS = 100  # most iterations of L-BFGS


def probe(encoder: Normalised, store: ClipStore) -> dict[str, float]:
    """Returns ``linear_probe`` and ``knn``: mean class accuracy on the val split.

    Args:
        encoder: takes uint8 frames; set to eval mode.
        store: the clips; ``can_probe`` must be true.

    Raises:
        MaskcastError: the encoder's maps, or their standard deviation, are not finite.
    """
    encoder.eval()
    train_NC, labels_N = _sample_features(encoder, store, "train")
    val_NC, truth_N = _sample_features(encoder, store, "val")
    mean_C, std_C = train_NC.mean(0), train_NC.std(0).clamp_min(1e-6 * train_NC.std() + 1e-12)
    train_NC, val_NC = (train_NC - mean_C) / std_C, (val_NC - mean_C) / std_C
    if not (train_NC.isfinite().all() and val_NC.isfinite().all()):
        raise MaskcastError(
            "the encoder's feature maps are not finite: training diverged; lower learning_rate or weight_decay"
        )
    return {
        "linear_probe": mean_class_accuracy(classify_linear(train_NC, labels_N, val_NC), truth_N),
        "knn": mean_class_accuracy(classify_knn(train_NC, labels_N, val_NC), truth_N),
    }


def can_probe(store: ClipStore) -> bool:
    """Whether train and val both have frames with labels in the store's chosen map."""
    return all(len(_indexed(store, split)[1]) for split in ("train", "val"))


def classify_linear(train_NC: Tensor, labels_N: Tensor, val_NC: Tensor) -> Tensor:
    """Classifies each row of ``val_NC`` by multinomial logistic regression, fitted with L-BFGS."""
    weights_KC = torch.zeros(int(labels_N.max()) + 1, train_NC.shape[1], requires_grad=True)
    bias_K = torch.zeros(len(weights_KC), requires_grad=True)
    optimizer = LBFGS([weights_KC, bias_K], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits_NK = F.linear(train_NC, weights_KC, bias_K)
        value = F.cross_entropy(logits_NK, labels_N) + L2_PENALTY * weights_KC.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return F.linear(val_NC, weights_KC, bias_K).argmax(1)


def classify_knn(train_NC: Tensor, labels_N: Tensor, val_NC: Tensor) -> Tensor:
    """Classifies each row of ``val_NC`` by votes of its nearest neighbours by cosine, weighted exp(cos / t)."""
    train_NC, val_NC = F.normalize(train_NC, dim=1), F.normalize(val_NC, dim=1)
    predictions = []
    for part_BC in val_NC.split(1024):
        similarity, index = (part_BC @ train_NC.t()).topk(min(NEIGHBOURS, len(train_NC)), dim=1)
        votes_BK = torch.zeros(len(part_BC), int(labels_N.max()) + 1)
        votes_BK.scatter_add_(1, labels_N[index], (similarity / TEMPERATURE).exp())
        predictions.append(votes_BK.argmax(1))
    return torch.cat(predictions)


def mean_class_accuracy(predicted_N: Tensor, truth_N: Tensor) -> float:
    """Returns the fraction of correct items per class, averaged over the classes in ``truth_N``."""
    correct = predicted_N == truth_N
    return float(np.mean([correct[truth_N == k].float().mean().item() for k in truth_N.unique()]))


def _indexed(store: ClipStore, split: str) -> tuple[Sequence[Clip], TrainingIndex]:
    """Returns the clips of a split with frames and labels, and an index of their labelled frames."""
    layer = masks_layer(store.label_map.name)
    clips = store.where(
        lambda group: (
            (group.split, group.kind) == (split, "labelled") and group.has_frames and layer in group.layers
        )
    )
    return clips, TrainingIndex(store, clips, [store.label_map], 1)


@torch.no_grad()
def _sample_features(encoder: Normalised, store: ClipStore, split: str) -> tuple[Tensor, Tensor]:
    """Returns features (N, C) and classes (N,) of the drawn pixels."""
    clips, index = _indexed(store, split)
    features, labels = [], []
    for number in evenly_spaced(len(index), FRAMES):
        k, t = index.at(number)
        pixels_N2, labels_N = _sample_pixels(store.masks(clips[k], slice(t, t + 1))[0], rng(0, number))
        features.append(_features_at(encoder, store.frames(clips[k])[t], pixels_N2))
        labels.append(torch.from_numpy(labels_N))
    return torch.cat(features), torch.cat(labels)


def _sample_pixels(mask_HW: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns row and column (N, 2) and class (N,) of the pixels drawn in a mask."""
    places, labels = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    for class_id in np.unique(mask_HW[mask_HW != IGNORE]):
        pixels = np.argwhere(mask_HW == class_id)
        places.append(random.permutation(pixels)[:PIXELS])
        labels.append(np.full(len(places[-1]), class_id, np.int64))
    return np.concatenate(places), np.concatenate(labels)


def _features_at(encoder: Normalised, frame_HWC: np.ndarray, pixels_N2: np.ndarray) -> Tensor:
    """Returns the features (N, C) at rows and columns of a frame."""
    map_1Chw = encoder(torch.tensor(frame_HWC, device=encoder.mean.device)[None])
    height, width = (size * encoder.stride for size in map_1Chw.shape[2:])  # size of the padded frame
    centres_N2 = (2 * pixels_N2[:, ::-1] + 1) / [width, height] - 1  # x, y; the padded frame spans -1 to 1
    grid_11N2 = torch.tensor(centres_N2, dtype=map_1Chw.dtype, device=map_1Chw.device)[None, None]
    read_1C1N = F.grid_sample(map_1Chw, grid_11N2, padding_mode="border", align_corners=False)
    return read_1C1N[0, :, 0].t().float().cpu()
