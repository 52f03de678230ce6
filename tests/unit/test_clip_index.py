"""Frames by number over clips, and the even choice of a sequence."""

from collections.abc import Sequence

import numpy as np
import pytest

from maskcast.data.clip_store.frame_index import FrameIndex, evenly_spaced, read_in_slices, slices_of
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip


def clips(*lengths: int) -> list[Clip]:
    return [Clip(f"v_{k}", "train", "labelled", length, None, {}, {}, {}) for k, length in enumerate(lengths)]


def test_frames_are_numbered_clip_after_clip() -> None:
    index = FrameIndex(clips(2, 1, 3))
    assert len(index) == 6
    assert [index.at(frame) for frame in range(6)] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]
    assert [index.start(clip) for clip in range(4)] == [0, 2, 3, 6]


def test_frames_of_a_range_come_by_clip() -> None:
    index = FrameIndex(clips(2, 1, 3))
    assert list(index.pieces(1, 5)) == [(0, slice(1, 2)), (1, slice(0, 1)), (2, slice(0, 2))]
    assert list(index.pieces(3, 3)) == []


def test_a_store_is_numbered_like_a_list(store: ClipStore) -> None:
    lazy, listed = FrameIndex(store.clips), FrameIndex(list(store.clips))
    assert len(lazy) == len(listed) == sum(clip.num_frames for clip in store.clips)
    assert [lazy.at(frame) for frame in range(len(lazy))] == [listed.at(frame) for frame in range(len(lazy))]


@pytest.mark.parametrize("frames", [[2, 3, 7], [5], range(1, 8, 3), range(4, 6)])
def test_frames_that_are_read_in_slices_are_those_that_were_asked_for(frames: Sequence[int]) -> None:
    assert read_in_slices(frames, np.arange(10).__getitem__).tolist() == list(frames)
    assert [t for part in slices_of(frames, 1) for t in np.arange(1, 10)[part]] == list(frames)


def test_no_clips_have_no_frames() -> None:
    assert len(FrameIndex([])) == 0


@pytest.mark.parametrize(
    ("total", "most", "expected"), [(22, 4, [0, 7, 14, 21]), (3, 11, [0, 1, 2]), (9, 1, [0]), (0, 5, [])]
)
def test_an_even_choice_keeps_first_and_last(total: int, most: int, expected: list[int]) -> None:
    assert evenly_spaced(total, most) == expected


@pytest.mark.parametrize(("total", "most", "expected"), [(10, 4, [0, 2, 5, 7]), (3, 11, [0, 1, 2]), (0, 5, [])])
def test_an_even_choice_of_parts_takes_the_first_of_each(total: int, most: int, expected: list[int]) -> None:
    assert evenly_spaced(total, most, ends=False) == expected
    assert len(np.unique(evenly_spaced(1000, 7, ends=False))) == 7
