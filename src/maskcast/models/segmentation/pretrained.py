"""The rest of a masker that ``pretrain_encoder`` trained whole: ``decoder.safetensors`` beside the encoder.

``config.json`` of such an encoder names the masker's config, ``meta.network``. All weights but those of the head,
which depend on the classes, go over to a masker of the same config. Other models take the encoder alone.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from maskcast.errors import MaskcastError
from maskcast.models.base import FORMAT, as_text
from maskcast.models.segmentation.base import Segmenter
from maskcast.models.segmentation.config import SegmenterModelConfig
from maskcast.models.segmentation.configs import SegmenterConfig
from maskcast.models.weights import read_weights
from maskcast.reading import checked

DECODER = "decoder.safetensors"
NETWORK = "network"  # key in meta


def save_decoder(folder: Path, segmenter: Segmenter, config: SegmenterModelConfig) -> None:
    """Writes all weights of a segmenter but those of its encoder and head, by their names in the segmenter."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in _decoder(segmenter, config).items()}
    save_file(state, folder / DECODER, metadata={"format": FORMAT})


def load_decoder(segmenter: Segmenter, config: SegmenterModelConfig, folder: Path, meta: dict[str, Any]) -> bool:
    """Loads the decoder of a masker that was pretrained whole into a segmenter that has its encoder already.

    Args:
        segmenter: built by ``config``.
        config: that of ``train_masker.model``.
        folder: what ``pretrain_encoder`` wrote.
        meta: of its description.

    Returns:
        Whether there is one: the method was a dense one.

    Raises:
        MaskcastError: if it is of another masker, or damaged.
    """
    if NETWORK not in meta:
        return False
    trained: SegmenterModelConfig = checked(
        SegmenterConfig, meta[NETWORK], folder / "config.json", "a network", "pretrain the encoder again"
    ).unweighted
    if trained != config.unweighted:
        given, asked = (each.model_dump(mode="json", exclude_none=True) for each in (trained, config.unweighted))
        raise MaskcastError(
            f"{folder}: pretrain_encoder.network is {as_text(given)}, but train_masker.model is {as_text(asked)}; "
            "make the two params agree"
        )
    state, own = read_weights(folder / DECODER), _decoder(segmenter, config)
    if wrong := sorted(
        name
        for name in state.keys() | own.keys()
        if name not in state or name not in own or state[name].shape != own[name].shape
    ):
        raise MaskcastError(
            f"{folder / DECODER}: {wrong[0]} ({len(wrong)} in all) differs; pretrain the encoder again"
        )
    segmenter.load_state_dict(state, strict=False)
    return True


def _decoder(segmenter: Segmenter, config: SegmenterModelConfig) -> dict[str, Tensor]:
    """Returns the state of what is neither encoder nor head nor colours."""
    encoder, head = config.encoder_of(segmenter), config.head_of(segmenter)
    others = tuple(f"{name}." for name, part in segmenter.named_modules() if part is encoder or part is head)
    return {
        name: tensor
        for name, tensor in segmenter.state_dict().items()
        if not name.startswith(others) and name not in ("mean", "std")
    }
