"""Clips to masks: frames stream through, a clip's state is its own, and replicas change nothing."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from tests.toy_segmenter import MemoryConfig
from tests.two_maps import MATTE, SQUARES
from torch import Tensor

from maskcast.errors import MaskcastError
from maskcast.inference import worker
from maskcast.inference.predictions import concatenate, count_frames
from maskcast.inference.segment import (
    segment,
    segment_clips,
    segment_future,
    segment_raw_and_consistent,
    segment_whole,
)
from maskcast.inference.streaming_consistency import StreamingConsistency
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap
from maskcast.models.cuda_graphs import WARM_UP_CALLS, GraphedCallable
from maskcast.models.objects.consistency import agree
from maskcast.models.segmentation.base import Segmenter, State

SETTING: dict[str, int] = {"batch_size": 4}


class Known(Segmenter):
    """Reads classes from the red channel and an opacity from the green one; its state counts frames in blue."""

    stateful = True

    def __init__(self) -> None:
        super().__init__((LabelMap("classes", tuple("abcd")), LabelMap("alpha", MATTE.classes, "alpha")))
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        count = state[0] if state else frames_BTHWC.new_zeros(len(frames_BTHWC), dtype=torch.long)
        if frames_BTHWC.any():  # the frame that a network is measured by is empty
            assert (frames_BTHWC[0, :, 0, 0, 2] == count + torch.arange(frames_BTHWC.shape[1])).all()
        ids = frames_BTHWC[..., 0].long()
        classes = torch.nn.functional.one_hot(ids, 4).movedim(-1, 2).float() * 3 * self.scale
        alpha = torch.logit(frames_BTHWC[..., 1] / 255)
        return (classes, alpha[:, :, None]), (count + frames_BTHWC.shape[1],)


def numbered(frames: int, seed: int = 0) -> np.ndarray:
    """Returns frames with classes in red, an opacity in green and the number of the frame in blue."""
    clip = np.random.default_rng(seed).integers(1, 4, (frames, 6, 8, 3), dtype=np.uint8)
    clip[..., 1] *= 60
    clip[..., 2] = np.arange(frames)[:, None, None]
    return clip


def test_classes_and_opacity_by_hand() -> None:
    clip = numbered(9)
    found = segment_whole(Worker(Known(), "fp32"), clip, **SETTING)
    np.testing.assert_array_equal(found["classes"].masks, clip[..., 0])
    np.testing.assert_array_equal(found["alpha"].masks, clip[..., 1])
    assert found["classes"].confidence == pytest.approx(np.exp(3) / (np.exp(3) + 3))
    assert found["alpha"].confidence is None


def test_a_segmenter_may_have_no_parameters() -> None:
    clip = numbered(2)
    found = segment_whole(Worker(Threshold((LabelMap("bright", ("dark", "bright")),)), "fp32"), clip, **SETTING)
    np.testing.assert_array_equal(found["bright"].masks, clip[..., 0] > 1)


class Threshold(Segmenter):
    """Pixels whose red is above 1."""

    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        red_BT1HW = frames_BTHWC[:, :, None, ..., 0].float()
        return (torch.cat([1.5 - red_BT1HW, red_BT1HW - 1.5], 2),), state


@pytest.mark.parametrize("label_map", [SQUARES, MATTE], ids=lambda label_map: label_map.name)
@pytest.mark.parametrize("consistent_frames", [None, 2])
def test_logits_that_are_no_numbers_are_said(label_map: LabelMap, consistent_frames: int | None) -> None:
    """They were masks of background, as sure as nothing."""
    segmenter = MemoryConfig().build([label_map]).eval()
    with torch.no_grad():
        segmenter.get_parameter("head.bias")[-1] = torch.nan
    with pytest.raises(MaskcastError, match="logits are not finite numbers: its training diverged; lower"):
        segment_raw_and_consistent(
            Worker(segmenter, "fp32"),
            np.zeros((3, 8, 8, 3), np.uint8),
            batch_size=2,
            consistent_frames=consistent_frames,
        )


def test_frames_are_read_when_they_are_needed_and_forgotten() -> None:
    read = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal read
        for t in range(1000):
            read += 1
            yield np.full((1, 6, 8, 3), [1, 60, t % 250], np.uint8)

    class Forgetful(Known):
        def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
            return super().forward(frames_BTHWC, (frames_BTHWC[:, 0, 0, 0, 2].long(),))

    done, consistency = 0, StreamingConsistency(7)
    pieces = segment(Worker(Forgetful(), "fp32"), frames(), batch_size=5, objects=True)
    for window in chain(chain.from_iterable(map(consistency.add, pieces)), consistency.end()):
        done += count_frames(window)
        assert done <= read < done + 7 + 5
    assert done == 1000


@pytest.mark.parametrize("frames", [3, 8, 9, 11])
def test_frames_agree_as_in_an_exported_program_to_the_last_one(frames: int) -> None:
    clip = numbered(frames, frames)
    found = segment_raw_and_consistent(Worker(Known(), "fp32"), clip, **SETTING, consistent_frames=4)[1][
        "classes"
    ].masks
    sure = np.exp(3 * np.eye(4, dtype=np.float32)[clip[..., 0]])
    np.testing.assert_array_equal(found, agree(clip[..., 0], sure / sure.sum(-1, keepdims=True), 4))


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_each_clip_starts_without_state_whatever_the_replicas(replicas: int) -> None:
    clips = [numbered(length, seed) for seed, length in enumerate((3, 9, 4, 8))]
    pieces: dict[int, list[dict[str, object]]] = {}
    for number, piece in segment_clips(
        [Known() for _ in range(replicas)], [[clip] for clip in clips], precision="fp32", **SETTING
    ):
        pieces.setdefault(number, []).append(piece)
    for number, clip in enumerate(clips):
        whole = segment_whole(Worker(Known(), "fp32"), clip, **SETTING)
        for name, one in concatenate(pieces[number]).items():
            np.testing.assert_array_equal(one.masks, whole[name].masks)


def test_what_is_made_is_masked_after_what_was_seen() -> None:
    clip = numbered(10)
    found = segment_future(Worker(Known(), "fp32"), clip[:6], clip[6:], **SETTING)
    np.testing.assert_array_equal(found["classes"].masks, clip[6:, ..., 0])
    torch.manual_seed(0)
    memory = MemoryConfig().build((SQUARES, MATTE)).eval()
    whole, last = (
        segment_whole(Worker(memory, "fp32"), clip, **SETTING),
        segment_future(Worker(memory, "fp32"), clip[:6], clip[6:], **SETTING),
    )
    np.testing.assert_array_equal(last["matte"].masks, whole["matte"].masks[6:])


def test_a_fault_in_a_replica_ends_the_run() -> None:
    wrong = numbered(6)
    wrong[3, ..., 2] = 200
    with pytest.raises(AssertionError):
        list(segment_clips([Known(), Known()], [[numbered(5)], [wrong]], precision="fp32", **SETTING))


class Tight(Known):
    """Runs out of memory where more frames come at once than fit."""

    def __init__(self, fitting: int) -> None:
        super().__init__()
        self.fitting = fitting

    def forward(self, frames_BTHWC: Tensor, state: State = ()) -> tuple[tuple[Tensor, ...], State]:
        if frames_BTHWC.shape[1] > self.fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(frames_BTHWC, state)


def test_frames_beyond_the_memory_go_through_in_smaller_batches(capsys: pytest.CaptureFixture[str]) -> None:
    clip = numbered(19)
    found = segment_whole(Worker(Tight(3), "fp32"), clip, batch_size=8)
    np.testing.assert_array_equal(found["classes"].masks, clip[..., 0])
    np.testing.assert_array_equal(found["alpha"].masks, clip[..., 1])
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in said] == ["going on with 4", "going on with 2"]


def test_a_state_does_not_go_on_where_the_masks_of_a_batch_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, calls = worker._decoded, []

    def tight(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:  # the first map of the second batch
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decoded(*given)

    monkeypatch.setattr(worker, "_decoded", tight)
    clip = numbered(8)
    found = segment_whole(Worker(Known(), "fp32"), clip, **SETTING)  # which looks that no frame comes twice
    np.testing.assert_array_equal(found["classes"].masks, clip[..., 0])


def test_a_frame_beyond_the_memory_is_said_in_one_line() -> None:
    with pytest.raises(MaskcastError, match=r"^a frame of 6 x 8 does not fit .*; use smaller frames$"):
        segment_whole(Worker(Tight(0), "fp32"), numbered(4), **SETTING)


def test_a_network_is_recorded_once_a_shape_has_come_often_enough(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[int] = []

    def double(x: Tensor) -> Tensor:
        calls.append(len(x))
        return 2 * x

    def record(work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        found = work()
        return found, lambda: found.copy_(work())  # type: ignore[func-returns-value, return-value]

    def refuses(work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        raise RuntimeError("operation not permitted\nmore")

    for way in (record, refuses):
        recorded, sizes = GraphedCallable(double, way), [3, *[2] * (WARM_UP_CALLS + 4), 1, 2]
        for k, size in enumerate(sizes):
            assert torch.equal(recorded(torch.full((size,), float(k))), torch.full((size,), 2.0 * k))
    said = "not recorded as a CUDA graph: RuntimeError: operation not permitted"
    assert capsys.readouterr().err.splitlines() == [said]
    assert calls.count(1) == 2 and calls.count(3) == 2
