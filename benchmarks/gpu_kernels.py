"""What a GPU needs for each of our kernels: registers, spilled bytes, shared memory; no GPU is needed.

    python benchmarks/gpu_kernels.py [--compute 90] [--precision bf16] [--width 64] [--classes 49] [--first]

Triton and its assembler compile each kernel for the card at the sizes that a step of the models asks for; nothing
is run. What does not fit into registers is spilled to memory, which a kernel is there to spare: more than
`MOST_SPILLED` bytes a thread is an error.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from _common import print_table
from maskcast.errors import one_line_errors
from maskcast.labels import single_map
from maskcast.models.encoders import unet as encoder_unet
from maskcast.models.forecasting import label_codec, pixels
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.forecasting.pixels import Draw, Pixels
from maskcast.models.objects import tracks, warp
from maskcast.models.recurrent import cells
from maskcast.models.segmentation import losses
from maskcast.models.segmentation import unet as segmenter_unet
from maskcast.models.segmentation.configs import MaskLossConfig, UNetConfig

MAX_SPILLED = 256
REGISTERS, WARPS = 65536, 64  # per multiprocessor
SIZE = 32, 48  # of pictures; kernels depend on channels and classes only


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compute", type=int, default=90, help="compute capability, 80 for 8.0 (%(default)s)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="(%(default)s)")
    parser.add_argument(
        "--width", type=int, default=64, help="of the U-Net, and of the ConvLSTM's state (%(default)s)"
    )
    parser.add_argument("--classes", type=int, default=49, help="(%(default)s)")
    parser.add_argument("--first", action="store_true", help="of each kernel the first form alone")
    options = parser.parse_args()
    if importlib.util.find_spec("triton") is None:
        parser.error("Triton is not installed: PyTorch's CPU builds come without it")
    compiled = Compiled(options.compute, first=options.first)
    with ExitStack() as stack:
        compiled.enter(stack)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            segmenter(options.width, options.classes)
            forecaster(options.width, options.classes)
        suppression()
    print_table(
        f"Kernels for capability {options.compute / 10:.1f}, {options.precision}, {options.classes} classes",
        ["kernel", "sizes", "registers", "spilled, bytes", "shared, KiB", "warps at once", "compiled, s"],
        compiled.rows,
    )
    if compiled.spilling:
        sys.exit(f"more than {MAX_SPILLED} bytes are spilled by {', '.join(compiled.spilling)}")


class Compiled:
    """Compiles kernels instead of launching them.

    Args:
        compute: compute capability of the GPU.
        first: whether each kernel is compiled only for its first sizes.
    """

    def __init__(self, compute: int, *, first: bool) -> None:
        import triton
        from triton.runtime import jit

        self.compute, self.first = compute, first
        self.rows: list[list[Any]] = []
        self.spilling: list[str] = []
        self._seen: set[Any] = set()
        self._compile = jit.JITFunction.run
        self._objdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"

    def enter(self, stack: ExitStack) -> None:
        """Imitates a GPU until the stack is closed."""
        from triton.runtime import driver, jit

        compiled = self

        def run(function: Any, *args: Any, **options: Any) -> None:
            compiled.add(function, args, options)

        for module in (encoder_unet, segmenter_unet, losses, cells, label_codec, pixels):
            stack.enter_context(mock.patch.object(module, "has_kernels", lambda x: x.dtype != torch.float64))
        for module in (tracks, warp):
            stack.enter_context(mock.patch.object(module, "shapes_are_fixed", return_value=True))
        stack.enter_context(mock.patch.object(Pixels, "draw", return_value=Draw(warp.ALL, warp.ALL, warp.ALL)))
        stack.enter_context(mock.patch.object(jit.JITFunction, "run", run))
        stack.enter_context(mock.patch.object(driver, "_active", _Card(self.compute)))
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(mock.patch.dict(os.environ, {"TRITON_CACHE_DIR": cache}))

    def add(self, function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Compiles a kernel for its arguments, once."""
        name = f"{function.fn.__module__.rpartition('.')[2]}.{function.fn.__name__}"
        if options.get("BACKWARD"):
            name += ", backward"
        if self.first and any(name == seen for seen, _ in self._seen):
            return
        start = time.perf_counter()
        kernel = self._compile(function, *args, **options | {"warmup": True})
        seconds = time.perf_counter() - start
        if (name, kernel.hash) in self._seen:
            return
        self._seen.add((name, kernel.hash))
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(kernel.asm["cubin"])
            file.flush()
            result = subprocess.run(
                [str(self._objdump), "-res-usage", file.name], check=True, capture_output=True, text=True
            ).stdout
        found = re.search(r"REG:(\d+) STACK:(\d+)", result)
        assert found is not None, result
        registers, spilled = map(int, found.groups())
        warps = kernel.metadata.num_warps
        at_once = min(WARPS // warps, REGISTERS // (registers * 32 * warps)) * warps
        sizes = ", ".join(
            f"{key} {value}" for key, value in options.items() if key.isupper() and value is not False
        )
        self.rows.append(
            [name, sizes, registers, spilled, round(kernel.metadata.shared / 1024), at_once, f"{seconds:.1f}"]
        )
        if spilled > MAX_SPILLED:
            self.spilling.append(name)


class _Card:
    """The answers of a GPU's driver that Triton needs."""

    def __init__(self, compute: int) -> None:
        self.compute = compute

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.compute, 32)


def segmenter(width: int, classes: int) -> None:
    """Runs a training step of a U-Net, and masks a frame."""
    from maskcast.models.kernels.decoding import most_probable

    model = UNetConfig(width=width).build(single_map([f"class {k}" for k in range(classes)]))
    (logits,), _ = model(torch.zeros(2, 1, *SIZE, 3, dtype=torch.uint8))
    losses.MaskLoss(MaskLossConfig())(logits.flatten(0, 1), torch.zeros(2, *SIZE, dtype=torch.uint8)).backward()
    most_probable(logits.detach()[:, 0])


def forecaster(width: int, classes: int) -> None:
    """Runs a training step of a ConvLSTM over all pixels."""
    model = ConvLSTMConfig(stride=4, hidden=width, motion="none", loss_steps=2, loss_stride=1).build(classes)
    seen, coming = (torch.zeros(2, frames, *SIZE, dtype=torch.uint8) for frames in (3, 2))
    model.loss(seen, coming)[0].backward()


def suppression() -> None:
    """Runs non-maximum suppression on the boxes of an image."""
    from maskcast.models.kernels.suppression import keep_by_nms

    keep_by_nms(torch.zeros(1, 70, 4), torch.ones(1, 70, dtype=torch.bool), 0.7)


if __name__ == "__main__":
    with one_line_errors():
        main()
