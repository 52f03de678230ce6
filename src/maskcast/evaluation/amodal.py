"""Scores of amodal label maps per image, separately for visible and occluded pixels.

An amodal map shows whole objects, also where another object is in front of them. A pixel of an object is
*occluded* if the object is not visible there.

Legend: T frames, H height, W width, K classes.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from maskcast.evaluation.metrics import confusion, jaccard_per_class, mean_where_labelled
from maskcast.labels import IGNORE, LabelMap

REGIONS = ("", "visible", "occluded")


@dataclass
class AmodalScores:
    """Scores of one segmenter; `definitions.AMODAL` says what each is.

    Args:
        maps: label maps to score, all of kind ``classes``.
        least_pixels: a class is scored in an image if it has at least so many true pixels.
    """

    maps: Sequence[LabelMap]
    least_pixels: int
    per_clip: dict[str, dict[str, float]] = field(default_factory=dict)
    """Scores of each clip; NaN if undefined."""

    def __post_init__(self) -> None:
        self._counts = {
            (label_map.name, region): np.zeros((label_map.num_classes,) * 2, np.int64)
            for label_map in self.maps
            for region in REGIONS
        }
        self._images: defaultdict[str, list[float]] = defaultdict(list)

    def add(
        self,
        clip: str,
        truth: Mapping[str, np.ndarray],
        prediction: Mapping[str, np.ndarray],
        visible: Mapping[str, np.ndarray] | None = None,
        hands: str | None = None,
    ) -> None:
        """Scores a clip.

        Args:
            clip: its id.
            truth: true masks (T, H, W) of each map, uint8, 255 where there is no label.
            prediction: predicted masks, likewise.
            visible: where the object of each map is visible, (T, H, W) bool; None if unknown.
            hands: group of images with several objects, as the clip gives it; ``interacting`` if it is None, or
                the name of another score, such as that of a map.
        """
        taken = {"single", *REGIONS, *(label_map.name for label_map in self.maps)}
        several = "interacting" if hands is None or hands in taken else hands
        scores_by_name: defaultdict[str, list[float]] = defaultdict(list)
        for t in range(len(truth[self.maps[0].name])):
            num_objects = sum(self._has_object(truth[label_map.name][t]) for label_map in self.maps)
            group = "single" if num_objects < 2 else several
            for label_map in self.maps:
                visible_HW = None if visible is None else visible[label_map.name][t]
                for region, part_HW in _regions(truth[label_map.name][t], visible_HW):
                    counts = confusion(part_HW, prediction[label_map.name][t], label_map.num_classes)
                    self._counts[label_map.name, region] += counts
                    score, suffix = self._image_score(counts), f"_{region}" if region else ""
                    scores_by_name[f"miou{suffix}"].append(score)
                    self._images[f"miou_{label_map.name}{suffix}"].append(score)
                    self._images[f"miou_{group}{suffix}"].append(score)
        for name, scores in scores_by_name.items():
            self._images[name] += scores
        self.per_clip[clip] = {name: mean_where_labelled(scores) for name, scores in scores_by_name.items()}

    def table(self) -> dict[str, float]:
        """Returns all scores by name; NaN if undefined."""
        scores = {name: mean_where_labelled(image_scores) for name, image_scores in sorted(self._images.items())}
        for region in REGIONS:
            class_scores = [score for label_map in self.maps for score in self._per_class(label_map, region)]
            scores[f"pooled_{region}".rstrip("_")] = mean_where_labelled(class_scores)
        return scores

    def per_class(self) -> list[tuple[str, str, dict[str, float]]]:
        """Returns, for each foreground class of each map, both names and the pooled Jaccard by region."""
        return [
            (
                label_map.name,
                label_map.classes[k],
                {region or "all": self._per_class(label_map, region)[k - 1] for region in REGIONS},
            )
            for label_map in self.maps
            for k in range(1, label_map.num_classes)
        ]

    def _has_object(self, mask_HW: np.ndarray) -> bool:
        """Whether any class has the pixels that it is scored with."""
        pixels = np.bincount(mask_HW.ravel(), minlength=IGNORE)[1:IGNORE]
        return bool(pixels.max() >= max(1, self.least_pixels))

    def _image_score(self, counts_KK: np.ndarray) -> float:
        scored = counts_KK.sum(1)[1:] >= self.least_pixels
        return mean_where_labelled(jaccard_per_class(counts_KK)[1:][scored].tolist())

    def _per_class(self, label_map: LabelMap, region: str) -> list[float]:
        return jaccard_per_class(self._counts[label_map.name, region])[1:].tolist()


def _regions(truth_HW: np.ndarray, visible_HW: np.ndarray | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the truth, and the truth of visible and of occluded pixels only (`IGNORE` elsewhere), by name."""
    yield "", truth_HW
    if visible_HW is not None:
        hidden_HW = (truth_HW != 0) & (truth_HW != IGNORE) & ~visible_HW
        yield "visible", np.where(hidden_HW, np.uint8(IGNORE), truth_HW)
        yield "occluded", np.where(hidden_HW, truth_HW, np.uint8(IGNORE))
