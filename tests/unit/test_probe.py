"""The probes on cases with a known answer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import moving_squares, write_store
from tests.unit.test_partly_labelled import partly
from torch import Tensor, nn

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.evaluation.probe import can_probe, classify_knn, classify_linear, mean_class_accuracy, probe
from maskcast.labels import LabelMap
from maskcast.models.encoders.siamese import Normalised


class Colours(nn.Module):
    """Gives the mean colour of each 2x2 cell, or nothing at all."""

    output_stride, out_channels = 2, [3]

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(x, 2) * self.gain]


def encoder(gain: float) -> Normalised:
    module: Any = Colours(gain)
    return Normalised(module, torch.zeros(3), torch.ones(3))


def test_mean_class_accuracy_by_hand() -> None:
    truth, predicted = torch.tensor([0, 0, 0, 0, 1, 1, 7]), torch.tensor([0, 0, 0, 1, 1, 0, 2])
    assert mean_class_accuracy(predicted, truth) == pytest.approx((0.75 + 0.5 + 0) / 3)


@pytest.mark.parametrize("classify", [classify_linear, classify_knn])
def test_classes_apart_are_told_apart(classify: Any) -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3]])
    labels = torch.arange(90) % 3
    train, val = (centres[labels] + 0.3 * torch.randn(90, 3) for _ in range(2))
    assert torch.equal(classify(train, labels, val), labels)


def test_neighbours_vote_by_their_likeness() -> None:
    train = torch.tensor([[1.0, 0], [0.8, 0.6], [0.8, 0.6]])
    assert classify_knn(train, torch.tensor([4, 2, 2]), torch.tensor([[1.0, 0.0]])).tolist() == [4]
    assert classify_knn(train, torch.tensor([4, 2, 2]), torch.tensor([[0.9, 0.4]])).tolist() == [2]


def test_colours_tell_squares_and_nothing_tells_nothing(store: ClipStore) -> None:
    seen, blind = probe(encoder(1.0), store), probe(encoder(0.0), store)
    assert seen["linear_probe"] > 0.9 and seen["knn"] > 0.85
    assert blind["linear_probe"] == pytest.approx(1 / 3) and blind["knn"] == pytest.approx(1 / 3)
    assert probe(encoder(1.0), store) == seen


def test_it_takes_labelled_clips_in_both_splits(store: ClipStore, tmp_path: Path) -> None:
    assert can_probe(store)
    assert not can_probe(write_store(tmp_path / "other", train=1, unlabeled=1))


def test_it_looks_at_the_frames_that_have_labels(store: ClipStore, tmp_path: Path) -> None:
    """One of 22 frames of each clip has labels, and not the ones that an even choice of few frames would meet."""
    known = {clip.id: [9] for clip in store.clips if clip.maps}
    few = partly(tmp_path / "partly", store, known)
    scores = probe(encoder(1.0), few)
    assert scores["linear_probe"] > 0.9 and scores["knn"] > 0.85
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("maskcast.evaluation.probe.FRAMES", 2)
        assert probe(encoder(1.0), few) == scores  # of each split the two frames that have labels
    assert not can_probe(partly(tmp_path / "none", store, {clip.id: [] for clip in store.clips if clip.maps}))


def test_clips_that_another_map_labels_are_left_alone(tmp_path: Path) -> None:
    mine, other = LabelMap("mine", ("background", "red", "blue")), LabelMap("other", ("background", "thing"))
    with ClipWriter(tmp_path / "clips", height=32, width=48, maps=[mine, other]) as writer:
        for k, (split, name) in enumerate(
            (("train", "mine"), ("train", "other"), ("val", "mine"), ("val", "other"))
        ):
            frames, masks = moving_squares(k, 22, 32, 48)
            labels = {name: masks if name == "mine" else (masks > 0).astype(np.uint8)}
            writer.add(f"{split}_{name}", split=split, kind="labelled", frames=frames, masks=labels)
    store = ClipStore(tmp_path / "clips")
    assert can_probe(store.of("mine"))
    assert probe(encoder(1.0), store.of("mine"))["linear_probe"] > 0.9
