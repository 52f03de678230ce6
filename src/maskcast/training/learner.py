"""One training step: the losses of a batch, their gradients and the optimiser's update."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from maskcast.distributed import average_gradients
from maskcast.errors import MaskcastError
from maskcast.models.cuda_graphs import GraphedCallable, Shapes, shapes_of
from maskcast.progress import say
from maskcast.seed import seed_libraries
from maskcast.training.compiling import compile_methods
from maskcast.training.out_of_memory import GpuMemory, estimate_batch_size, take_samples
from maskcast.training.processes import Processes
from maskcast.training.schedule import Schedule
from maskcast.training.step_metrics import READ_DELAY, Logged, StepMetricsQueue, divergence_error
from maskcast.training.task import ChunkedTask, Task

WARM_UP_STEPS = 3  # steps with the same shapes that run eagerly before one is recorded as a CUDA graph
MAX_GRAPHS = 64  # sets of shapes that are recorded, at most

Losses = Iterator[tuple[Tensor, Logged]]


class Learner:
    """Takes the steps of a training.

    Args:
        task: model and loss.
        params: the schedule.
        processes: device, precision and other processes.
        optimizer: of the parameters of the task's model.
        steps: number in the whole training, which decides whether compiling saves time.

    Attributes:
        metrics: loss, gradient norm and logged numbers of the steps taken; on a GPU they arrive some steps late.
        compiled: the compiled methods of the model.
    """

    def __init__(
        self, task: Task, params: Schedule, processes: Processes, optimizer: Optimizer, steps: int
    ) -> None:
        self._task, self._params, self._processes, self._optimizer = task, params, processes, optimizer
        self.metrics = StepMetricsQueue(delay=READ_DELAY if processes.device.type == "cuda" else 0)
        single_process = not processes.multi_process
        wanted = processes.device.type == "cuda" and single_process and params.compile is not False
        recordable = wanted and task.same_each_step
        self.compiled = compile_methods(
            task.model,
            params.compile,
            processes.device,
            steps=steps,
            single_process=single_process,
            recorded=recordable,
        )
        model = _NextLoss(task.model, processes)
        self._next_loss = model if isinstance(task, ChunkedTask) else processes.wrap_ddp(model)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        learnt = set(self._parameters)
        # what a loss may change itself: statistics, queues, a moving target
        self._state = [each.detach() for each in task.model.parameters() if each not in learnt]
        self._state += list(task.model.buffers())
        networks = [set(network.parameters()) for network in task.networks]
        self._clipped = [[one for one in self._parameters if one in network] for network in networks]
        self._step = 0  # the current one
        self._seen: set[Shapes] = set()  # of the batches so far
        self._recorded: GraphedCallable[tuple[Tensor, Logged]] | None = None
        if recordable:
            self._recorded = GraphedCallable(
                self._gradients,
                parameters=self._parameters,
                warm_up_calls=WARM_UP_STEPS,
                max_graphs=MAX_GRAPHS,
            )

    def step(self, step: int, batch: Any, rate: float | None = None) -> None:
        """Takes a step; ``rate``, if given, replaces the schedule's learning rate.

        Raises:
            MaskcastError: if the batch does not fit into the memory of the GPU, or the step is too large.
        """
        self._task.model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self._params.rate(step) if rate is None else rate
        self._step = step
        result = self._compute_gradients(batch)
        if result is None or not self._update_weights(*result):
            raise MaskcastError(self._out_of_memory_message(batch))
        self._optimizer.zero_grad(set_to_none=True)
        self._task.end_step(step)

    def _update_weights(self, loss: Tensor, logged: Logged) -> bool:
        """Clips the gradients and updates the weights; returns whether there was enough memory."""
        try:
            most = self._params.clip_grad_norm or math.inf
            norms = torch.stack([nn.utils.clip_grad_norm_(network, most) for network in self._clipped])
            self.metrics.add(self._step, loss, norms.norm(), logged)
            self._optimizer.step()
        except torch.OutOfMemoryError:  # the first step allocates the optimiser's state
            return False
        except RuntimeError as error:
            if "without overflow" not in str(error):  # PyTorch's message for a number beyond the range of float32
                raise
            raise divergence_error(
                self._step, "a learning rate or weight decay that is too high for float32"
            ) from error
        return True

    def _compute_gradients(self, batch: Any) -> tuple[Tensor, Logged] | None:
        """Computes gradients; returns loss and numbers to log, or None if memory ran out."""
        self.compiled.on()
        seed_libraries(self._params.seed, self._step)
        copies = self._copies_of_state() if self._may_repeat(batch) else []
        try:
            result = self._gradients(batch) if self._recorded is None else self._recorded(batch)
            self._seen.add(shapes_of(batch))
            return result
        except torch.OutOfMemoryError:
            out_of_memory = True  # handled below, because the error's traceback keeps the memory allocated
        except Exception as error:
            out_of_memory = False
            if not self.compiled.fall_back(error):
                if self._processes.multi_process and "finished reduction" in str(error):  # a message of DDP
                    raise MaskcastError(
                        f"step {self._step}: the network uses other weights than in the first step, which "
                        "training with several processes does not support; use all in each step, and multiply by "
                        "0 what a step skips, or train with one process"
                    ) from error
                raise
        self._optimizer.zero_grad(set_to_none=True)
        for tensor, copied in zip(self._state, copies, strict=False):  # no copies if there is no memory for them
            tensor.copy_(copied)
        if out_of_memory:
            if self._recorded is None or len(self._recorded) == 0:
                return None
            self._recorded = None  # CUDA graphs hold memory of their own
            torch.cuda.empty_cache()
            say("training: steps are no longer recorded as CUDA graphs: these leave too little memory")
        return self._compute_gradients(batch)

    def _copies_of_state(self) -> list[Tensor]:
        """Returns copies of what a loss may change, or none if there is no memory for them."""
        try:
            return [tensor.clone() for tensor in self._state]
        except torch.OutOfMemoryError:
            return []

    def _may_repeat(self, batch: Any) -> bool:
        """Whether the step is done again if it fails: not compiled, or without the CUDA graphs of other steps.

        Compiling fails at the first batch with certain shapes.
        """
        if len(self.compiled) and shapes_of(batch) not in self._seen:
            return True
        return self._recorded is not None and len(self._recorded) > 0 and not self._recorded.replays(batch)

    def _gradients(self, batch: Any) -> tuple[Tensor, Logged]:
        """Accumulates the gradients of all chunks; returns the sums of their losses and numbers to log."""
        chunks, losses = _losses(self._task, batch, self._step)
        total: list[Tensor] = []
        logged: dict[str, float | Tensor] = {}
        for _ in range(chunks):
            loss, metrics = self._next_loss(losses)
            if not loss.requires_grad:
                raise MaskcastError(
                    f"step {self._step}: the loss depends on no weight that trains; compute it from what the "
                    "network returns, without detach(), item(), argmax() or no_grad()"
                )
            loss.backward()
            total.append(loss.detach())
            logged |= {name: logged.get(name, 0.0) + value for name, value in metrics.items()}
        if isinstance(self._task, ChunkedTask):
            average_gradients(self._task.model)
        return torch.stack(total).sum(), logged

    def _out_of_memory_message(self, batch: Any) -> str:
        """Returns the error message for a batch that does not fit, with an estimate of the size that would."""
        self.compiled.off()
        self._recorded = None
        batch_size = self._params.batch_size
        message = f"training.batch_size {batch_size} does not fit into the memory of the GPU"
        if self._processes.multi_process:
            return f"{message}; lower it, or train on more processes"

        def measure(size: int) -> None:
            self._optimizer.zero_grad(set_to_none=True)
            self._gradients(take_samples(batch, size, batch_size))

        # the state that an optimiser's first step will allocate: two numbers per weight
        state = sum(2 * weights.nbytes for weights in self._parameters if weights not in self._optimizer.state)
        estimate = estimate_batch_size(measure, batch_size, GpuMemory(self._processes.device), state)
        if estimate is None:
            return f"{message}; lower it, or choose a smaller model"
        return f"{message}; lower it to {estimate}, the estimated maximum"


class _NextLoss(nn.Module):
    """The module that DDP wraps: DDP averages the gradients of what is computed in ``forward``."""

    def __init__(self, model: nn.Module, processes: Processes) -> None:
        super().__init__()
        self.model, self.processes = model, processes

    def forward(self, losses: Losses) -> tuple[Tensor, Logged]:
        with self.processes.autocast():
            loss, logged = next(losses)
        return loss.float() if self.processes.bf16 else loss, logged


def _losses(task: Task, batch: Any, step: int) -> tuple[int, Losses]:
    """Returns the number of losses of a batch, and an iterator over them."""
    if isinstance(task, ChunkedTask):
        return task.chunks(batch), task.losses(batch, step)
    return 1, (task.loss(batch, step) for _ in range(1))
