"""SimVP: class embeddings in patches, a translator from past to future, corrections at full resolution."""

from typing import Literal

from pydantic import Field
from torch import nn

from maskcast.models.forecasting.label_codec import EmbeddedClasses
from maskcast.models.forecasting.mask_forecaster import EMBEDDING, MaskForecasterConfig
from maskcast.models.forecasting.translator import Translator


class SimVPConfig(MaskForecasterConfig):
    """All future frames in one pass, by gated spatiotemporal attention (SimVP v2)."""

    arch: Literal["simvp"] = "simvp"
    hidden: int = Field(default=16, ge=1)
    """Channels of each frame's state; the network is as wide as all of them."""
    blocks: int = Field(default=4, ge=1)
    """Blocks of attention."""
    context: int = Field(default=11, ge=1)
    """Frames that are looked at, of a longer context the last ones."""
    horizon: int = Field(default=11, ge=1)
    """Frames forecast at most."""

    def build(self, num_classes: int) -> nn.Module:
        """Returns the network."""
        codec = EmbeddedClasses(num_classes, self.hidden, self.stride, EMBEDDING)
        return self.around(Translator(self.hidden, self.context, self.horizon, self.blocks), codec)
