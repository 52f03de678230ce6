"""Single-frame networks cut open where a memory may stand: before the head, or at the scales of a decoder.

Both halves run the network's own layers, so its weights keep their names.

Legend: N frames, C channels, H height, W width, K channels of logits.
"""

from typing import Any

import torch
from torch import Tensor, nn

from maskcast.models.segmentation.unet import Change, Maps, UNet


class Cut:
    """A network of segmentation-models-pytorch, cut before its head.

    Args:
        network: what was built.

    Attributes:
        channels: of the features.
        scales: channels of each scale that can be changed, coarsest first; none for most networks.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.channels: int = network.segmentation_head[0].in_channels
        self.scales: tuple[int, ...] = ()

    def encode(self, x_NCHW: Tensor) -> Maps:
        """Returns the encoder's maps, finest first."""
        return self.network.encoder(x_NCHW)

    def decode(self, maps: Maps, change: Change) -> Tensor:
        """Returns what the head takes, the map of each scale changed on the way."""
        return self.network.decoder(maps)

    def head(self, features_NCHW: Tensor) -> Tensor:
        """Returns logits (N, K, H, W)."""
        return self.network.segmentation_head(features_NCHW)


class DeepLabCut(Cut):
    """DeepLabV3+, cut where the pooled features and those of fine resolution lie side by side (304 channels)."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.channels = network.decoder.block2[0][0].in_channels

    def decode(self, maps: Maps, change: Change) -> Tensor:
        """Returns what the decoder's last block takes."""
        decoder = self.network.decoder
        return torch.cat([decoder.up(decoder.aspp(maps[-1])), decoder.block1(maps[2])], 1)

    def head(self, features_NCHW: Tensor) -> Tensor:
        """Returns logits (N, K, H, W)."""
        return super().head(self.network.decoder.block2(features_NCHW))


class SmpUNetCut(Cut):
    """The library's U-Net; its scales are what its decoder's blocks give, but for the finest."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.scales = tuple(block.conv2[0].out_channels for block in network.decoder.blocks[:-1])

    def decode(self, maps: Maps, change: Change) -> Tensor:
        """Returns what the head takes, the map of each scale changed on the way."""
        decoder = self.network.decoder
        up_NCHW: Tensor = decoder.center(maps[-1])
        skips = [*maps[-2:0:-1], None]
        for scale, (block, skip, finer) in enumerate(zip(decoder.blocks, skips, maps[-2::-1], strict=True)):
            up_NCHW = block(up_NCHW, *finer.shape[2:], skip_connection=skip)
            if scale < len(self.scales):
                up_NCHW = change(scale, up_NCHW)
        return up_NCHW


class UNetCut(Cut):
    """Our U-Net; its scales are the encoder's deepest map and what the decoder makes of it, but for the finest."""

    def __init__(self, network: UNet) -> None:
        self.network = network
        self.channels = network.down.out_channels[0]
        self.scales = tuple(reversed(network.down.out_channels[1:]))

    def encode(self, x_NCHW: Tensor) -> Maps:
        """Returns the encoder's maps, finest first."""
        return self.network.down(x_NCHW)

    def decode(self, maps: Maps, change: Change) -> Tensor:
        """Returns what the head takes, the map of each scale changed on the way."""
        return self.network.decode(maps, change)

    def head(self, features_NCHW: Tensor) -> Tensor:
        """Returns logits (N, K, H, W)."""
        return self.network.head(features_NCHW)


def cut_open(network: nn.Module) -> Cut:
    """Returns a network that a config of single-frame maskers built, cut open."""
    if isinstance(network, UNet):
        return UNetCut(network)
    kinds = {"DeepLabV3Plus": DeepLabCut, "Unet": SmpUNetCut}
    return kinds.get(type(network).__name__, Cut)(network)
