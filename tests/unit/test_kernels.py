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
