"""Whether the params of a stage fit those of the stages whose outputs it reads.

The stages check this, too, but only when they read these outputs: after the work of all stages before them.
"""

from collections.abc import Iterator, Mapping

from maskcast.models.config import as_text
from maskcast.models.encoders.configs import NoMethod
from maskcast.models.segmentation.config import SegmenterModelConfig
from maskcast.models.segmentation.configs import RecurrentConfig, SmpConfig, UNetConfig
from maskcast.params import Params
from maskcast.training.tasks.detection_params import DetectorTraining
from maskcast.training.tasks.encoder_params import EncoderTraining
from maskcast.training.tasks.segmentation_params import SegmentationTraining


def conflicts(params: Mapping[str, Params], sources: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Yields each conflict with an earlier stage: the section, and a description.

    Args:
        params: validated params by section; sections that are not valid are left out.
        sources: for each section, the section whose stage writes the input of each port.
    """
    for section, own in params.items():
        for port, source in sources[section].items():
            if port not in CHECKS or source not in params:
                continue
            if conflict := CHECKS[port](section, own, source, params[source]):
                yield section, conflict


def _encoder(section: str, own: Params, source: str, given: Params) -> str | None:
    """Checks that the pretrained encoder is that of the model; dense methods' decoders are not compared."""
    if not isinstance(given, EncoderTraining) or isinstance(given.method, NoMethod):
        return None
    if not isinstance(own, SegmentationTraining | DetectorTraining):
        return None
    needed = own.model.encoder_config
    if needed is None:
        return f"{section}.model {own.model.arch!r} starts from no encoder; set {source}.method to none"
    if given.model != needed:
        texts = [as_text(each.model_dump(mode="json")) for each in (given.model, needed)]
        return f"{source}.model is {texts[0]}, but {section}.model needs {texts[1]}; make them equal"
    weights = own.model.encoder_weights if isinstance(own.model, SmpConfig) else None
    if weights is not None:
        return f"{section}.model.encoder_weights and {source} are two starts; set one of them to null or none"
    return None


def _start(section: str, own: Params, source: str, given: Params) -> str | None:
    """Checks that a masker that starts from another one has its network."""
    if not isinstance(own, SegmentationTraining) or not isinstance(given, SegmentationTraining) or own.anew:
        return None
    networks = [_network(each.model) for each in (own, given)]
    if None in networks or networks[0] == networks[1]:
        return None
    return (
        f"{section}.model differs from {source}.model, from which it starts; make them equal, or set anew to true"
    )


def _network(model: SegmenterModelConfig) -> SegmenterModelConfig | None:
    """Returns the network of single frames in a model; None if it is a plugin's."""
    base = model.base if isinstance(model, RecurrentConfig) else model
    return base.unweighted if isinstance(base, UNetConfig | SmpConfig) else None


def _clips(section: str, own: Params, source: str, given: Params) -> str | None:
    """Checks that clips are long enough to forecast and score."""
    frames = getattr(getattr(given, "source", None), "frames", None)
    context, horizon = getattr(own, "context_frames", None), getattr(own, "horizon", None)
    if frames is None or context is None or horizon is None or getattr(own, "split", None) == "hidden":
        return None
    if frames >= context + horizon:
        return None
    return (
        f"{source}.source.frames is {frames}, but {section} needs clips of context_frames + horizon = "
        f"{context + horizon} frames; prepare longer clips, or lower these in each section that has them"
    )


def _masks(section: str, own: Params, source: str, given: Params) -> str | None:
    """Checks that the masks of a context do not depend on later frames."""
    context, consistent = getattr(own, "context_frames", None), getattr(given, "consistent_frames", None)
    model = getattr(own, "model", None)  # of pretrain_forecaster; the other stages have no architecture to look at
    if model is None or getattr(model, "input", "masks") == "frames" or context is None:
        return None
    if not isinstance(consistent, int) or context % consistent == 0:
        return None
    return (
        f"{source}.consistent_frames is {consistent}, so masks of the {context} context frames of {section} "
        f"depend on later frames; set it to {context} or null"
    )


CHECKS = {"encoder": _encoder, "start": _start, "clips": _clips, "masks": _masks}
"""Check of each input port: section and params of its stage, section and params of the stage that writes it."""
