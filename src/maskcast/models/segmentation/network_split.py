"""Splits single-frame networks where a memory can be inserted: before the head, or at a decoder's scales.

Both parts run the network's own layers, so that its weights keep their names.

Legend: N frames, C channels, H height, W width, K channels of logits.
"""

from typing import Any

import torch
from torch import Tensor, nn

from maskcast.models.segmentation.unet import Change, Maps, UNet


class SplitNetwork:
    """A network of segmentation-models-pytorch, split before its head.

    Args:
        network: to split.

    Attributes:
        channels: of the features before the head.
        scales: channels of each decoder scale where maps can be changed, coarsest first; empty for most networks.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.channels: int = network.segmentation_head[0].in_channels
        self.scales: tuple[int, ...] = ()

    def encode(self, x_NCHW: Tensor) -> Maps:
        """Returns the encoder's maps, finest first."""
        return self.network.encoder(x_NCHW)

    def decode(self, maps: Maps, change: Change) -> Tensor:
        """Returns the head's input, after applying ``change`` to the map of each scale."""
        return self.network.decoder(maps)

    def head(self, features_NCHW: Tensor) -> Tensor:
        """Returns logits (N, K, H, W)."""
        return self.network.segmentation_head(features_NCHW)


class SplitDeepLab(SplitNetwork):
    """DeepLabV3+, split where pooled and high-resolution features are concatenated (304 channels)."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.channels = network.decoder.block2[0][0].in_channels

    def decode(self, maps: Maps, change: Change) -> Tensor:
        """Returns the input of the decoder's last block."""
        decoder = self.network.decoder
        return torch.cat([decoder.up(decoder.aspp(maps[-1])), decoder.block1(maps[2])], 1)

    def head(self, features_NCHW: Tensor) -> Tensor:
        """Returns logits (N, K, H, W)."""
        return super().head(self.network.decoder.block2(features_NCHW))


class SplitSmpUNet(SplitNetwork):
    """The library's U-Net; its scales are the outputs of all decoder blocks but the last."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.scales = tuple(block.conv2[0].out_channels for block in network.decoder.blocks[:-1])

    def decode(self, maps: Maps, change: Change) -> Tensor:
        """Returns the head's input, after applying ``change`` to the map of each scale."""
        decoder = self.network.decoder
        up_NCHW: Tensor = decoder.center(maps[-1])
        skips = [*maps[-2:0:-1], None]
        for scale, (block, skip, finer) in enumerate(zip(decoder.blocks, skips, maps[-2::-1], strict=True)):
            up_NCHW = block(up_NCHW, *finer.shape[2:], skip_connection=skip)
            if scale < len(self.scales):
                up_NCHW = change(scale, up_NCHW)
        return up_NCHW


class SplitUNet(SplitNetwork):
    """Our U-Net; its scales are the encoder's deepest map and all decoder maps but the finest."""

    def __init__(self, network: UNet) -> None:
        self.network = network
        self.channels = network.down.out_channels[0]
        self.scales = tuple(reversed(network.down.out_channels[1:]))

    def encode(self, x_NCHW: Tensor) -> Maps:
        """Returns the encoder's maps, finest first."""
        return self.network.down(x_NCHW)

    def decode(self, maps: Maps, change: Change) -> Tensor:
        """Returns the head's input, after applying ``change`` to the map of each scale."""
        return self.network.decode(maps, change)

    def head(self, features_NCHW: Tensor) -> Tensor:
        """Returns logits (N, K, H, W)."""
        return self.network.head(features_NCHW)


def split_network(network: nn.Module) -> SplitNetwork:
    """Splits a network that was built by a config of single-frame maskers."""
    if isinstance(network, UNet):
        return SplitUNet(network)
    classes = {"DeepLabV3Plus": SplitDeepLab, "Unet": SplitSmpUNet}
    return classes.get(type(network).__name__, SplitNetwork)(network)
