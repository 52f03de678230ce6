"""Muon, and what else trainings do with optimisers."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from maskcast.models.arithmetic import full_float32
from maskcast.models.cuda_graphs import GraphedCallable
from maskcast.models.optimizers import AdamW

Shapes = tuple[torch.Size, ...]

MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
ADAMW_SCALE = 0.2  # the root mean square of a step of AdamW, relative to the learning rate


class Muon(AdamW):
    """Muon for the weights of convolutions, AdamW for everything else.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) reshapes such a weight to a matrix,
    outputs x (inputs * height * width). It steps along the momentum after making all its singular values about
    equal, so that directions that only few samples need are learnt as fast as common ones. A step is as large as
    one of AdamW (Liu et al. 2025, arXiv 2502.16982), so a learning rate and a weight decay mean the same for both
    kinds of weights.

    ``torch.optim.Muon`` is not used: it takes two-dimensional weights only, and computes in bf16, in which the
    shortened iterations of ``orthogonal`` would diverge.

    Args:
        groups: parameter groups, as for AdamW.
        lr: the learning rate.
        matrices: the parameters that Muon updates; AdamW updates the others.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, matrices: Iterable[Tensor]) -> None:
        super().__init__(groups, lr=lr)
        self._matrices = set(matrices)
        self._recorded: dict[Shapes, GraphedCallable[list[Tensor]]] = {}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Takes a step. It deletes the gradients of the parameters that Muon updates."""
        with full_float32():
            for group in self.param_groups:
                matrices = [each for each in group["params"] if each in self._matrices and each.grad is not None]
                if matrices:
                    self._step_matrices(matrices, group["lr"], group["weight_decay"])
        return super().step(closure)

    def _step_matrices(self, weights: list[Tensor], rate: float, decay: float) -> None:
        gradients = [each.grad for each in weights if each.grad is not None]
        momenta = [self._momentum(each) for each in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        nesterov = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov momentum
        steps = self._orthogonal([each.flatten(1) for each in nesterov])
        torch._foreach_mul_(weights, 1 - rate * decay)
        for weight, step_MN in zip(weights, steps, strict=True):
            scale = ADAMW_SCALE * max(step_MN.shape) ** 0.5
            weight.add_(step_MN.view_as(weight), alpha=-rate * scale)
            weight.grad = None  # AdamW skips parameters without a gradient

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())  # AdamW loads only states that have a step
            state["momentum"] = torch.zeros_like(weight)
        return state["momentum"]

    def _orthogonal(self, matrices: list[Tensor]) -> list[Tensor]:
        """Returns `orthogonal` of each; on a GPU by a CUDA graph, as each is dozens of small kernels."""
        if not matrices[0].is_cuda:
            return [orthogonal(each) for each in matrices]
        shapes = tuple(each.shape for each in matrices)
        if shapes not in self._recorded:
            self._recorded[shapes] = GraphedCallable(partial(_orthogonal_parts, shapes))
        return self._recorded[shapes](torch.cat([each.flatten() for each in matrices]))


def _orthogonal_parts(shapes: Shapes, numbers: Tensor) -> list[Tensor]:
    """Returns `orthogonal` of each matrix, from one vector of all their elements."""
    parts = numbers.split([shape.numel() for shape in shapes])
    return [orthogonal(part.view(shape)) for part, shape in zip(parts, shapes, strict=True)]


def convolutions(model: nn.Module) -> list[Tensor]:
    """Returns the learnable weights of all convolutions that are not grouped."""
    weights = [each.weight for each in model.modules() if isinstance(each, nn.Conv2d) and each.groups == 1]
    return [weight for weight in weights if weight.requires_grad]


def orthogonal(matrix_MN: Tensor) -> Tensor:
    """Returns a float32 matrix with the same singular vectors and singular values of about 1 (0.7 to 1.2).

    Singular values below a thousandth of the norm become smaller than that. The method is five Newton-Schulz
    iterations of Jordan's quintic, X <- (a + b G + c G^2) X with G = X X^T. All these factors are polynomials of
    the first G, so the iterations are done on G, which is small, and only their product is multiplied by X. For a
    3x3 convolution this takes a third of the time.
    """
    a, b, c = QUINTIC
    wide = matrix_MN.shape[0] <= matrix_MN.shape[1]
    x_MN = matrix_MN if wide else matrix_MN.T
    x_MN = x_MN / (x_MN.norm() + 1e-7)
    gram_MM = x_MN @ x_MN.T
    product_MM = torch.eye(len(x_MN), device=x_MN.device)
    for _ in range(ITERATIONS):
        factor_MM = torch.addmm(gram_MM, gram_MM, gram_MM, beta=b, alpha=c)
        factor_MM.diagonal().add_(a)
        product_MM = factor_MM @ product_MM
        gram_MM = factor_MM @ gram_MM @ factor_MM
    x_MN = product_MM @ x_MN
    return x_MN if wide else x_MN.T


def fused(optimizer: Optimizer, device: torch.device) -> None:
    """Switches an optimiser of parameters on a GPU to its fused implementation; others stay as they are."""
    if device.type == "cuda":
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = True, False


def load_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Loads the state of an optimiser, but keeps its own device-specific settings."""
    own_groups = optimizer.param_groups
    groups = [
        saved | {name: mine[name] for name in ("fused", "foreach") if name in mine}
        for saved, mine in zip(state["param_groups"], own_groups, strict=True)
    ]
    optimizer.load_state_dict(state | {"param_groups": groups})
