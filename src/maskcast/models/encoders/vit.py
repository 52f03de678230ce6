"""Vision transformers of timm as encoders: the tokens of four blocks, as maps of the same stride.

Timm is imported when a network is built, because that takes seconds.

Legend: B batch, C channels, H height, W width.
"""

from typing import Any

from torch import Tensor, nn

MAPS = 4
_MODULES = ("vision_transformer", "eva")  # timm's: plain ones, among them DINO's and DINOv2's; and DINOv3's


def is_vit(name: str) -> bool:
    """Whether ``tu-<name>`` is a plain vision transformer of timm's."""
    if not name.startswith("tu-"):
        return False
    import timm

    return bool(timm.models.is_model_in_modules(name.removeprefix("tu-"), _MODULES))


class ViTEncoder(nn.Module):
    """A vision transformer, whose position embeddings are interpolated to the size of the frames.

    Its maps are those of evenly spaced blocks (Ranftl et al. 2021, arXiv 2103.13413), after the last norm as in
    DINOv2 (arXiv 2304.07193). Tokens of no place (class, registers) are left out.

    Args:
        name: ``tu-<name>`` of timm's.
        settings: further arguments of ``timm.create_model``.
    """

    model: Any

    def __init__(self, name: str, **settings: Any) -> None:
        import timm

        super().__init__()
        name = name.removeprefix("tu-")
        self.model = timm.create_model(name, num_classes=0, dynamic_img_size=True, **settings)
        depth = len(self.model.blocks)
        self._blocks = [depth * (number + 1) // MAPS - 1 for number in range(MAPS)]
        self.model.prune_intermediate_layers(self._blocks, prune_head=True)  # else some weights had no gradient
        last = self.model.feature_info[-1]
        self.output_stride, self.out_channels = int(last["reduction"]), [int(last["num_chs"])] * MAPS

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """Returns the maps, of the first blocks first; height and width must be multiples of the stride."""
        with x_BCHW.device:  # timm makes rotary embeddings on the host, which a recorded step must not
            maps: list[Tensor] = self.model.forward_intermediates(
                x_BCHW, indices=self._blocks, norm=True, intermediates_only=True
            )
        return maps
