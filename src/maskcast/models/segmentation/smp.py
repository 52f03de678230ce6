"""Networks of segmentation-models-pytorch for maskers.

Weights are initialised at random; those of the encoder may be loaded later from ``pretrain_encoder`` or
``encoder_weights``. The library is imported when a network is built, because that takes seconds.
"""

from torch import nn

from maskcast.errors import MaskcastError, first_line
from maskcast.models.encoders.smp import BUILD_ERRORS, build_encoder, check_encoder, check_pyramid, library
from maskcast.models.encoders.vit import ViTEncoder, is_vit

CLASS_NAMES = {
    "smp_unet": "Unet",
    "smp_unetplusplus": "UnetPlusPlus",
    "smp_deeplabv3plus": "DeepLabV3Plus",
    "smp_deeplabv3": "DeepLabV3",
    "smp_fpn": "FPN",
    "smp_linknet": "Linknet",
    "smp_manet": "MAnet",
    "smp_pspnet": "PSPNet",
    "smp_segformer": "Segformer",
    "smp_upernet": "UPerNet",
}


def build_network(arch: str, encoder: str, channels: int) -> tuple[nn.Module, int]:
    """Returns a network with ``channels`` logit channels, and the deepest stride of its encoder.

    Raises:
        MaskcastError: if the library or the encoder is not there, or the architecture cannot use the encoder.
    """
    smp = library(arch)
    check_encoder(encoder, smp.encoders.get_encoder_names())
    if arch == "smp_dpt":
        return _build_dpt(encoder, channels)
    check_pyramid(encoder, arch)
    make = getattr(smp, CLASS_NAMES[arch])
    try:
        network: nn.Module = make(encoder, encoder_weights=None, in_channels=3, classes=channels)
    except BUILD_ERRORS as error:
        reason = f"encoder {encoder!r} does not fit {arch}: {first_line(error)}"
        raise MaskcastError(f"{reason}; choose another") from None
    stride = network.get_submodule("encoder").output_stride
    assert isinstance(stride, int)
    return network, stride


def _build_dpt(encoder: str, channels: int) -> tuple[nn.Module, int]:
    """Returns DPT on a vision transformer, and the divisor of its input sizes."""
    if not is_vit(encoder):
        raise MaskcastError(
            f"encoder {encoder!r} is no plain vision transformer of timm's, which smp_dpt needs; choose one, e.g. "
            "'tu-vit_small_patch16_dinov3.lvd1689m' or 'tu-vit_small_patch14_dinov2.lvd142m', or another arch"
        )
    from maskcast.models.segmentation.dpt import DPT

    vit = build_encoder(encoder, "smp_dpt")
    assert isinstance(vit, ViTEncoder)
    network = DPT(vit, channels)
    return network, network.multiple
