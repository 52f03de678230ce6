"""The initial weights of a segmenter's training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from maskcast.errors import MaskcastError
from maskcast.models.encoders.pretrained import Pretrained
from maskcast.models.encoders.table import is_trained, load_into
from maskcast.models.segmentation.base import Segmenter
from maskcast.models.segmentation.configs import SegmenterConfig
from maskcast.models.segmentation.pretrained import load_decoder
from maskcast.models.segmentation.table import start_from_masker

Colours = tuple[Any, Any]  # mean and std of each channel, floats


def load_initial_weights(
    segmenter: Segmenter,
    config: SegmenterConfig,
    encoder: Path | None,
    start: Path | None,
    measure_colours: Callable[[], Colours],
) -> Pretrained | None:
    """Loads the weights to start from, and sets the mean and std of colours that belong to them.

    Args:
        segmenter: freshly built.
        config: the config that built it.
        encoder: folder that ``pretrain_encoder`` wrote; ignored if it has no weights.
        start: folder that ``train_masker`` wrote.
        measure_colours: computes the colours if no loaded weights come with any.

    Returns:
        The published weights that it starts from, if the config names some.

    Raises:
        MaskcastError: if weights do not fit, or more than one start is given.
    """
    pretrained = config.load_pretrained(segmenter)
    colours = None if pretrained is None else pretrained.colours
    trained = encoder is not None and is_trained(encoder)
    if encoder is not None and trained:
        if config.encoder_config is None:
            raise MaskcastError(
                f"{encoder}: train_masker.model {config.arch!r} does not support a pretrained encoder; "
                "set pretrain_encoder.method to none, or use another model"
            )
        description = load_into(config.encoder_of(segmenter), encoder, config.encoder_config, "train_masker.model")
        if pretrained is not None:
            raise MaskcastError(f"{encoder}: conflicts with train_masker.model.encoder_weights; set that to null")
        if description is not None:
            load_decoder(segmenter, config, encoder, description)
            colours = description["meta"]["mean"], description["meta"]["std"]
    if start is not None:
        if pretrained is not None or trained:
            raise MaskcastError(f"{start}: conflicts with the encoder; remove --encoder and model.encoder_weights")
        start_from_masker(segmenter, config, start)
        return None
    mean, std = colours or measure_colours()
    segmenter.mean.copy_(torch.as_tensor(mean))
    segmenter.std.copy_(torch.as_tensor(std))
    return pretrained
