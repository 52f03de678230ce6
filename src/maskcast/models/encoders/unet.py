"""The encoder (down path) of the U-Net (Ronneberger et al. 2015, arXiv 1505.04597), with batch norm.

Legend: B batch, C channels, H height, W width.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.models.arithmetic import has_kernels

LEVELS = 4


class UNetEncoder(nn.ModuleList):
    """The encoder: per level two 3x3 convolutions with batch norm and ReLU; 2x2 max pooling between levels.

    Its maps have ``width * (1, 2, 4, 8)`` channels at strides 1, 2, 4, 8.
    """

    output_stride = 2 ** (LEVELS - 1)

    def __init__(self, width: int) -> None:
        self.out_channels = [width * 2**level for level in range(LEVELS)]
        super().__init__(map(DoubleConv, [3, *self.out_channels[:-1]], self.out_channels))

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """Returns the map of each level, finest first; height and width must be multiples of 8."""
        maps = []
        for level, block in enumerate(self):
            x_BCHW = block(x_BCHW if level == 0 else F.max_pool2d(x_BCHW, 2))
            maps.append(x_BCHW)
        return maps


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each with batch norm and ReLU, which on a GPU are fused to one kernel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            conv = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)  # the norm that follows has a bias
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU(True)]
        super().__init__(*layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns a map of the same height and width."""
        if not has_kernels(x_BCHW):
            return super().forward(x_BCHW)
        from maskcast.models.kernels.norm_relu import norm_relu

        layers = list(self)
        for conv, norm, relu in (layers[:3], layers[3:]):
            x_BCHW = conv(x_BCHW)
            # synchronised batch norms have another type and are not fused
            x_BCHW = norm_relu(x_BCHW, norm) if type(norm) is nn.BatchNorm2d else relu(norm(x_BCHW))
        return x_BCHW
