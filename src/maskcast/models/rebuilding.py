"""Checks that a network of another package, built anew with its saved weights, gives the same results.

What it keeps outside its ``state_dict`` would be lost: modules in a plain list, or a number that training changes.
maskcast's own networks are tested for this.
"""

from collections.abc import Callable, Sequence

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.models.base import storable
from maskcast.params import Params
from maskcast.plugins import class_name
from maskcast.seed import seed_libraries

TOLERANCE = 1e-3  # mean difference relative to the mean output, for sums in another order on a GPU
REMEDY = (
    "keep modules in attributes, nn.ModuleList or nn.ModuleDict, and tensors and numbers that training changes in "
    "persistent buffers"
)


def check_rebuilt(
    model: nn.Module,
    config: Params,
    rebuild: Callable[[], nn.Module],
    outputs: Callable[[nn.Module], Sequence[Tensor]],
) -> None:
    """Builds a network anew, loads its state as a file would hold it, and compares the results.

    Args:
        model: the network in eval mode.
        config: its config, for errors.
        rebuild: builds it anew.
        outputs: what a network returns for a fixed input.

    Raises:
        MaskcastError: the state cannot be saved or loaded, or the results differ.
    """
    name = class_name(config)
    try:
        stored = load(save(storable(model.state_dict())))
        again = rebuild()
        again.load_state_dict(stored)
    except MaskcastError:
        raise
    except Exception as error:  # another package may have anything in its state
        reason = " ".join(str(error).split())[:300]
        raise MaskcastError(
            f"{name}: the network's weights cannot be saved and loaded again ({type(error).__name__}: {reason}); "
            "make the same modules in each build, and keep tensors alone in its state_dict"
        ) from error
    device = next((tensor.device for tensor in model.state_dict().values()), None)
    seed_libraries(0)  # a network may draw random numbers, the same for both
    made = outputs(model)
    seed_libraries(0)
    if any(map(differ, made, outputs(again.to(device).eval()))):
        raise MaskcastError(
            f"{name}: built anew with its own weights, the network gives other results, so it keeps something "
            f"outside its state_dict that would not be saved; {REMEDY}"
        )


def differ(made: Tensor, remade: Tensor) -> bool:
    """Returns whether results differ by more than rounding; infinities and NaN must be in the same places."""
    made, remade = made.float(), remade.float()
    if made.shape != remade.shape or not torch.equal(finite := made.isfinite(), remade.isfinite()):
        return True
    made, remade = made[finite], remade[finite]
    return bool((made - remade).abs().mean() > TOLERANCE * made.abs().mean())  # False if none is finite
