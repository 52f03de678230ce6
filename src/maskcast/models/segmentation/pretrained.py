"""The decoder of a masker that ``pretrain_encoder`` trained as a whole: ``decoder.safetensors``.

``config.json`` of such an encoder has the masker's config as ``meta.network``. A masker of the same config takes
all weights but those of the head, which depend on the classes. Other models take only the encoder.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from maskcast.errors import MaskcastError
from maskcast.models.base import FORMAT, SHA256, storable
from maskcast.models.config import as_text
from maskcast.models.segmentation.base import Segmenter
from maskcast.models.segmentation.config import SegmenterModelConfig
from maskcast.models.segmentation.configs import SegmenterConfig
from maskcast.models.weights import read_weights
from maskcast.reading import validated

DECODER = "decoder.safetensors"
NETWORK = "network"  # key in meta


def save_decoder(folder: Path, segmenter: Segmenter, config: SegmenterModelConfig) -> None:
    """Writes all weights of a segmenter but those of encoder and head, with their names in the segmenter.

    To be called before ``save_encoder``, which writes the sha256 of all weights in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(storable(_decoder(segmenter, config)), folder / DECODER, metadata={"format": FORMAT})


def load_decoder(
    segmenter: Segmenter, config: SegmenterModelConfig, folder: Path, description: dict[str, Any]
) -> bool:
    """Loads a pretrained decoder into a segmenter whose encoder is already loaded.

    Args:
        segmenter: built by ``config``.
        config: ``train_masker.model``.
        folder: written by ``pretrain_encoder``.
        description: of the folder (``read_description``).

    Returns:
        Whether there is a decoder, i.e. the method was a dense one.

    Raises:
        MaskcastError: if it belongs to another masker, or is damaged.
    """
    meta = description["meta"]
    if NETWORK not in meta:
        return False
    trained: SegmenterModelConfig = validated(
        SegmenterConfig, meta[NETWORK], folder / "config.json", "a network", "pretrain the encoder again"
    ).unweighted
    if trained != config.unweighted:
        pretrained, expected = (
            each.model_dump(mode="json", exclude_none=True) for each in (trained, config.unweighted)
        )
        raise MaskcastError(
            f"{folder}: pretrain_encoder.network is {as_text(pretrained)}, but train_masker.model is "
            f"{as_text(expected)}; make the two params agree"
        )
    state = read_weights(folder / DECODER, description[SHA256].get(DECODER))
    decoder_state = _decoder(segmenter, config)
    if mismatched := sorted(
        name
        for name in state.keys() | decoder_state.keys()
        if name not in state or name not in decoder_state or state[name].shape != decoder_state[name].shape
    ):
        raise MaskcastError(
            f"{folder / DECODER}: {mismatched[0]} ({len(mismatched)} in all) differs; pretrain the encoder again"
        )
    segmenter.load_state_dict(state, strict=False)
    return True


def _decoder(segmenter: Segmenter, config: SegmenterModelConfig) -> dict[str, Tensor]:
    """Returns the state without encoder, head and colour statistics."""
    encoder, head = config.encoder_of(segmenter), config.head_of(segmenter)
    others = tuple(f"{name}." for name, part in segmenter.named_modules() if part is encoder or part is head)
    return {
        name: tensor
        for name, tensor in segmenter.state_dict().items()
        if not name.startswith(others) and name not in ("mean", "std")
    }
