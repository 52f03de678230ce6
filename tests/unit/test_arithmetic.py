"""The floating-point arithmetic of a precision."""

import pytest
import torch

from maskcast.models import arithmetic


@pytest.mark.parametrize(
    ("precision", "has_bf16", "expected"),
    [("bf16", True, torch.bfloat16), ("bf16", False, torch.float32), ("fp32", True, torch.float32)],
)
def test_bf16_is_not_emulated(
    precision: str, has_bf16: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "_cpu_has_bf16", lambda: has_bf16)
    with arithmetic.autocast(torch.device("cpu"), precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
