"""Device, precision and processes (started by torchrun) of a training.

PyTorch is called directly. Lightning Fabric, which was used before, imports torch's compiler: two CPU seconds at
each start (``docs/decisions/2026-11-26-fabric.md``).
"""

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from maskcast.errors import MaskcastError
from maskcast.models.arithmetic import arithmetic
from maskcast.reading import pluralize

AGREE_EVERY = 10  # steps
TIMEOUT = timedelta(minutes=30)  # a process waits so long for the others


class Processes:
    """This process and those that train with it; each has a GPU of its own, or all share the CPU.

    The constructor joins the group of processes that torchrun started, and ``leave`` ends it. Without torchrun
    this process is alone.

    Args:
        precision: ``bf16`` autocasts, weights stay fp32; ``fp32`` computes everything in the type of the weights.

    Attributes:
        device: of this process.
        here: number of processes on this machine.
        several: whether there are other processes, on this machine or elsewhere.

    Raises:
        MaskcastError: if there are more processes than GPUs.
    """

    def __init__(self, precision: str) -> None:
        here, everywhere = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        gpus = torch.cuda.device_count()
        if 0 < gpus < here:
            raise MaskcastError(
                f"training.processes {here} is above the {pluralize(gpus, 'GPU')} of this machine; lower it"
            )
        self.precision, self.bf16, self.several, self.here = precision, precision == "bf16", everywhere > 1, here
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpus else torch.device("cpu")
        if gpus:
            torch.cuda.set_device(self.device)
        if self.several:
            own = self.device if gpus else None
            distributed.init_process_group("nccl" if gpus else "gloo", timeout=TIMEOUT, device_id=own)

    def leave(self) -> None:
        """Leaves the process group."""
        if self.several:
            distributed.destroy_process_group()

    def agree(self, asked: bool, step: int) -> bool:
        """Returns whether any process is asked to pause; they exchange this only every `AGREE_EVERY` steps."""
        if not self.several:
            return asked
        if step % AGREE_EVERY:
            return False
        count = torch.tensor(float(asked), device=self.device)
        distributed.all_reduce(count)
        return bool(count > 0)

    def meet(self) -> None:
        """Waits for the other processes."""
        if self.several:
            distributed.barrier()

    def averaging(self, module: nn.Module) -> nn.Module:
        """Returns the module wrapped so that its backward pass averages the gradients over all processes."""
        if not self.several:
            return module
        ids = None if self.device.type == "cpu" else [self.device.index]
        # static graph: some encoders have weights that are not used
        return DistributedDataParallel(module, device_ids=ids, static_graph=True)

    def arithmetic(self) -> AbstractContextManager[None]:
        """Returns a context for all steps that sets the device's arithmetic for the precision."""
        return arithmetic(self.device, self.precision)

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the autocast context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()
