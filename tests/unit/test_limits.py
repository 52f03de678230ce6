"""Memory follows from bounds: work in pieces gives what it gives at once, and what cannot be cut is refused."""

import numpy as np
import pytest
import torch
from tests.conftest import moving_squares
from tests.registered import CLASSES

from maskcast.errors import MaskcastError
from maskcast.inference.segment import segment_raw_and_consistent, segment_whole
from maskcast.inference.worker import Worker
from maskcast.labels import LabelMap
from maskcast.models import limits
from maskcast.models.forecasting.base import Forecaster
from maskcast.models.forecasting.configs import ConvLSTMConfig, ObjectsConfig
from maskcast.models.limits import strips, time_limit
from maskcast.models.objects import consistency
from maskcast.models.objects.consistency import find_regions, make_consistent
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.registry.inputs import MAX_BYTES, check_request_size

PLACES = (limits, consistency)
PIPELINE = (-1, -1, -1, -1, 3), (-1, 11, -1, -1)


def at_once(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    for module in PLACES:
        monkeypatch.setattr(module, "CHUNK_NUMBERS", numbers)


def test_frames_are_cut_into_whole_ones_or_rows_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch, 100)
    assert list(strips(5, 4, 5, 2)) == [
        (slice(0, 2), slice(0, 4)),
        (slice(2, 4), slice(0, 4)),
        (slice(4, 5), slice(0, 4)),
    ]
    assert list(strips(1, 4, 5, 7)) == [(slice(0, 1), slice(0, 2)), (slice(0, 1), slice(2, 4))]
    assert len(list(strips(2, 3, 1000, 1000))) == 6  # a row at least


def test_masks_are_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    masker = UNetConfig(width=2).build([LabelMap("mask", CLASSES)]).eval()
    clip = moving_squares(0, 6, 32, 48)[0]
    sizes: list[int] = []
    masker.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[1]))

    def found(frames: int | None) -> tuple[np.ndarray, np.ndarray]:
        whole = segment_raw_and_consistent(Worker(masker, "fp32"), clip, batch_size=4, consistent_frames=frames)[
            1
        ]["mask"]
        assert whole.confidence is not None
        return whole.masks, whole.confidence

    wanted = {frames: found(frames) for frames in (None, 3)}
    for pixels in (2 * 32 * 48, 48):  # two frames at once; not even one, and its logits in rows
        at_once(monkeypatch, pixels * masker.numbers_per_pixel)
        for frames, (masks, confidence) in wanted.items():
            sizes.clear()
            again = found(frames)
            np.testing.assert_array_equal(again[0], masks)
            np.testing.assert_allclose(again[1], confidence, atol=1e-6)
            assert max(sizes) == max(1, pixels // (32 * 48))


@pytest.mark.parametrize("config", [ConvLSTMConfig(hidden=4, stride=4), ObjectsConfig(hidden=4)])
def test_forecasts_are_the_same_in_pieces(
    config: ConvLSTMConfig | ObjectsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = config.build(len(CLASSES)).eval()
    assert isinstance(model, Forecaster)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    masks = torch.from_numpy(np.stack([moving_squares(seed, 4, 32, 48)[1] for seed in (0, 1)]))
    whole = model.forecast_with_confidence(masks, 3)
    for numbers in (100_000, 9_000):  # some steps, or some rows
        at_once(monkeypatch, numbers)
        pieces = model.forecast_with_confidence(masks, 3)
        assert torch.equal(pieces[0], whole[0])
        assert (pieces[1].int() - whole[1].int()).abs().max() <= 1
        assert torch.equal(model.forecast(masks, 3), whole[0])


def test_what_cannot_be_cut_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    masker = UNetConfig(width=2).build([LabelMap("mask", CLASSES)]).eval()
    forecaster = ConvLSTMConfig(hidden=4, stride=4).build(len(CLASSES))
    assert isinstance(forecaster, Forecaster)
    monkeypatch.setattr(limits, "MAX_NUMBERS", 1000 * masker.numbers_per_pixel)
    with pytest.raises(
        MaskcastError, match=r"^a frame of 32 x 48: 1536 pixels, this model supports at most 1000; "
    ):
        segment_whole(Worker(masker, "fp32"), np.zeros((1, 32, 48, 3), np.uint8), batch_size=1)
    monkeypatch.setattr(limits, "MAX_NUMBERS", 1000)
    with pytest.raises(MaskcastError, match=r"^a clip of 4 frames of 32 x 48: 6144 pixels, .* smaller frames$"):
        forecaster.forecast(torch.zeros(1, 4, 32, 48, dtype=torch.uint8), 2)


def test_work_ends_between_pieces_when_its_time_is_over() -> None:
    masker = UNetConfig(width=2).build([LabelMap("mask", CLASSES)]).eval()
    forecaster = ConvLSTMConfig(hidden=4, stride=4).build(len(CLASSES))
    assert isinstance(forecaster, Forecaster)
    clip, masks = moving_squares(0, 4, 32, 48)
    line = r"^frames: the call exceeded its time limit of -1 s; use fewer clips or smaller frames$"
    with time_limit(-1):
        with pytest.raises(MaskcastError, match=line):
            segment_whole(Worker(masker, "fp32"), clip, batch_size=4)
        with pytest.raises(MaskcastError, match=line):
            forecaster.forecast(torch.from_numpy(masks)[None], 2)
        with pytest.raises(MaskcastError, match=line):
            find_regions(masks[0], np.zeros((np.count_nonzero(masks[0]), 3), np.float32), limits.check_time)
    forecaster.forecast(torch.from_numpy(masks)[None], 2)


def test_of_many_regions_the_largest_are_followed_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((10, 12), np.uint8)
    mask[1:4, 1:4], mask[6:9, 6:9], mask[0, 11], mask[9, 0] = 1, 2, 3, 3
    probabilities = np.eye(4, dtype=np.float32)[mask[mask > 0]]
    monkeypatch.setattr(consistency, "MAX_REGIONS", 2)
    regions = find_regions(mask, probabilities)
    assert regions.area_R.tolist() == [9, 9]
    np.testing.assert_array_equal(regions.labels_HW > 0, (mask == 1) | (mask == 2))
    masks, _ = make_consistent(mask[None], np.ones((1, 10, 12), np.float32), [regions])
    np.testing.assert_array_equal(masks[0], mask)


def test_a_call_is_bounded_by_what_comes_of_it() -> None:
    assert check_request_size((2, 4, 10, 20, 3), *PIPELINE) == 2 * 11 * 10 * 20
    assert check_request_size((4, 10, 20, 3), *PIPELINE) == 11 * 10 * 20  # without a batch axis
    side = int((MAX_BYTES / 11) ** 0.5)
    check_request_size((1, 1, side, side, 3), *PIPELINE)
    with pytest.raises(MaskcastError, match="limited to 64 MiB and 4096 frames per call; give fewer clips"):
        check_request_size((1, 1, side + 1, side + 1, 3), *PIPELINE)
    with pytest.raises(MaskcastError, match="limited to 64 MiB and 4096 frames"):
        check_request_size((4097, 1, 1, 1), (-1, -1, -1, -1), (-1, 11, -1, -1))  # masks
    assert check_request_size((7, 5, 6, 3), (-1, -1, -1, 3), (-1, 100, 6)) == 7 * 600  # boxes
