"""The kernels for GPUs compute what PyTorch's operations do: here by Triton's interpreter, on a CPU."""

import importlib.util
import os
import subprocess
import sys

import pytest
from tests.conftest import ROOT


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="PyTorch's CPU builds come without Triton")
def test_kernels_compute_what_pytorch_does() -> None:
    command = [sys.executable, "-m", "tests.kernels"]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, check=True, timeout=800)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="PyTorch's CPU builds come without Triton")
@pytest.mark.parametrize("module", ["kernels.gates", "segmentation.loss_kernels"])
def test_triton_is_told_to_fuse_products_whichever_kernel_is_first(module: str) -> None:
    """Else Triton 3.9 warns, and 3.10 computes other numbers."""
    command = f"import maskcast.models.{module}, os; assert os.environ['TRITON_DEFAULT_FP_FUSION'] == '1'"
    env = {name: value for name, value in os.environ.items() if name != "TRITON_DEFAULT_FP_FUSION"}
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, env=env, check=True)
