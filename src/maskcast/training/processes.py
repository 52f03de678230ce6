"""Device, precision and processes (started by torchrun) of a training.

PyTorch is called directly. Lightning Fabric, which was used before, imports torch's compiler: two CPU seconds at
each start (``docs/decisions/2026-11-26-fabric.md``).
"""

import os
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from maskcast.errors import MaskcastError
from maskcast.models.arithmetic import arithmetic, autocast
from maskcast.reading import pluralize

EXCHANGE_EVERY = 10  # steps
TIMEOUT = timedelta(minutes=30)  # a process waits so long for the others


class Processes:
    """This process and those that train with it; each has a GPU of its own, or all share the CPU.

    The constructor joins the group of processes that torchrun started, and ``close`` ends it. Without torchrun
    this process is alone.

    Args:
        precision: ``bf16`` autocasts, weights stay fp32; ``fp32`` computes everything in the type of the weights.

    Attributes:
        device: of this process.
        local_processes: number of processes on this machine.
        multi_process: whether there are other processes, on this machine or elsewhere.

    Raises:
        MaskcastError: if there are more processes than GPUs.
    """

    def __init__(self, precision: str) -> None:
        local_processes, total = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        gpus = torch.cuda.device_count()
        if 0 < gpus < local_processes:
            raise MaskcastError(
                f"training.processes {local_processes}: this machine has {pluralize(gpus, 'GPU')}; lower it"
            )
        self.precision, self.bf16 = precision, precision == "bf16"
        self.multi_process, self.local_processes = total > 1, local_processes
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpus else torch.device("cpu")
        if gpus:
            torch.cuda.set_device(self.device)
        if self.multi_process:
            device_id = self.device if gpus else None
            distributed.init_process_group("nccl" if gpus else "gloo", timeout=TIMEOUT, device_id=device_id)

    def close(self) -> None:
        """Leaves the process group."""
        if self.multi_process:
            distributed.destroy_process_group()

    def any_requested(self, requested: bool, step: int) -> bool:
        """Returns whether any process is asked to pause; they exchange this only every `EXCHANGE_EVERY` steps."""
        if not self.multi_process:
            return requested
        if step % EXCHANGE_EVERY:
            return False
        count = torch.tensor(float(requested), device=self.device)
        distributed.all_reduce(count)
        return bool(count > 0)

    def barrier(self) -> None:
        """Waits for the other processes."""
        if self.multi_process:
            distributed.barrier()

    def wrap_ddp(self, module: nn.Module) -> nn.Module:
        """Returns the module wrapped so that its backward pass averages the gradients over all processes."""
        if not self.multi_process:
            return module
        ids = None if self.device.type == "cpu" else [self.device.index]
        # static graph: some encoders have weights that are not used
        return DistributedDataParallel(module, device_ids=ids, static_graph=True)

    def arithmetic(self) -> AbstractContextManager[None]:
        """Returns a context for all steps that sets the device's arithmetic for the precision."""
        return arithmetic(self.device, self.precision)

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the autocast context of a forward pass."""
        return autocast(self.device, self.precision)
