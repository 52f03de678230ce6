"""What SimVP's translator sees and says."""

import pytest
import torch

from maskcast.errors import MaskcastError
from maskcast.models.forecasting.configs import SimVPConfig
from maskcast.models.forecasting.translator import Translator


def test_every_context_frame_reaches_every_future_frame() -> None:
    torch.manual_seed(0)
    translator = Translator(3, context=4, horizon=5, blocks=2)
    seen = torch.randn(1, 4, 3, 6, 8, requires_grad=True)
    for state in translator(seen, 5):
        assert state.shape == (1, 3, 6, 8)
        (gradient,) = torch.autograd.grad(state.square().sum(), seen, retain_graph=True)
        assert (gradient.abs().sum((0, 2, 3, 4)) > 0).all()


def test_a_short_context_is_filled_up_and_of_a_long_one_the_last_frames_count() -> None:
    translator = Translator(3, context=4, horizon=2, blocks=1)
    seen = torch.randn(2, 6, 3, 4, 4)
    assert torch.equal(translator(seen, 1)[0], translator(seen[:, -4:], 1)[0])
    filled = torch.cat([torch.zeros(2, 2, 3, 4, 4), seen[:, -2:]], 1)
    assert torch.equal(translator(seen[:, -2:], 2)[1], translator(filled, 2)[1])


def test_a_horizon_beyond_the_pass_is_refused() -> None:
    model = SimVPConfig(hidden=4, stride=4, horizon=3).build(4)
    with pytest.raises(MaskcastError, match=r"forecasts 3 frames, got horizon 4; .* model\.horizon 4"):
        model.forecast(torch.zeros(1, 5, 16, 16, dtype=torch.uint8), 4)
