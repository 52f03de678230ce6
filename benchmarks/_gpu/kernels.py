"""The kernels that take most of the time of a training step, as PyTorch's profiler finds them."""

import re

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from _gpu.cases import Case
from _gpu.measure import CARD, DEVICE, WARM_UP, forget, on_device, wait
from _gpu.table import Row
from maskcast.models.arithmetic import arithmetic

STEPS = 3
SHOWN = 12  # kernels of a row
NAME = 48  # characters of a kernel's name


def measure(case: Case) -> Row:
    """Returns the row of a model: the time in kernels per step, eager and in bf16, without the optimiser's."""
    forget()
    task = case.task()
    batch = on_device(task.batch(0))
    task.model.to(DEVICE).train()

    def step() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss, _ = task.loss(batch, 0)
        loss.backward()
        task.model.zero_grad(set_to_none=True)

    with arithmetic(DEVICE, "bf16"):
        for _ in range(WARM_UP):
            step()
        wait()
        activity = ProfilerActivity.CUDA if CARD else ProfilerActivity.CPU  # of the CPU, operations
        with profile(activities=[activity]) as profiler:
            for _ in range(STEPS):
                step()
            wait()
    found = [
        ((each.self_device_time_total if CARD else each.self_cpu_time_total) / 1e3 / STEPS, each)
        for each in profiler.key_averages()
        if each.device_type == (DeviceType.CUDA if CARD else DeviceType.CPU)
    ]
    found.sort(key=lambda pair: -pair[0])
    longest = [f"{_short(each.key)} {ms:.2f} ms ({each.count // STEPS}x)" for ms, each in found[:SHOWN]]
    kernels = sum(each.count for _, each in found) // STEPS
    row = Row("kernels", case.name, f"{kernels} kernels", case.batch, case.unit, sum(ms for ms, _ in found))
    row.note = ", ".join(longest)
    return row


def _short(name: str) -> str:
    """Returns a kernel's name without its namespaces, types and arguments."""
    while (plain := re.sub(r"<[^<>]*>|\([^()]*\)", "", name)) != name:
        name = plain
    return name.removeprefix("void ").split("::")[-1].strip().replace("|", "/")[:NAME]
