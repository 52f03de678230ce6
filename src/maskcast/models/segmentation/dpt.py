"""DPT (Ranftl et al. 2021, arXiv 2103.13413): a vision transformer with a convolutional decoder.

The decoder is that of segmentation-models-pytorch. The library's whole network does not support patches of 14
pixels, which DINOv2 has.
"""

from segmentation_models_pytorch.base import SegmentationHead, SegmentationModel
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from torch import Tensor

from maskcast.models.encoders.vit import MAPS, ViTEncoder

GRIDS = (8, 16, 32)  # strides from which the decoder resizes to strides 4, 8, 16 and 32; others are taken for 16


class DPT(SegmentationModel):
    """A vision transformer and a decoder, as wide as Depth Anything V2's (arXiv 2406.09414) for small and base.

    Args:
        encoder: the vision transformer.
        channels: of the logits.

    Attributes:
        multiple: divisor of its input sizes, so that the coarsest scale has an even share of the patches.
    """

    def __init__(self, encoder: ViTEncoder, channels: int) -> None:
        super().__init__()
        stride, width = encoder.output_stride, encoder.out_channels[-1]
        grid = stride if stride in GRIDS else 16
        fusion = width // 6
        self.encoder, self.classification_head, self.multiple = encoder, None, stride * 32 // grid
        self.decoder = _Decoder(
            encoder.out_channels,
            [grid] * MAPS,
            encoder_has_prefix_tokens=False,
            readout="ignore",
            intermediate_channels=[width // 2**scale for scale in reversed(range(MAPS))],
            fusion_channels=fusion,
        )
        self.segmentation_head = SegmentationHead(fusion, channels, upsampling=2 * stride / grid)
        self.initialize()


class _Decoder(DPTDecoder):
    def forward(self, maps: list[Tensor]) -> Tensor:
        return super().forward(maps, [None] * len(maps))
