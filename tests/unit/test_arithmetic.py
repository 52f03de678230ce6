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


@pytest.mark.parametrize(("has_bf16", "told"), [(True, "bf16 on cpu"), (False, "fp32 on cpu")])
def test_the_arithmetic_that_runs_is_told_not_the_one_asked_for(
    has_bf16: bool, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "_cpu_has_bf16", lambda: has_bf16)
    assert arithmetic.performed(torch.device("cpu"), "bf16") == told
    assert arithmetic.performed(torch.device("cpu"), "fp32") == "fp32 on cpu"
    assert arithmetic.performed(torch.device("cuda"), "bf16") == "bf16 on cuda"
