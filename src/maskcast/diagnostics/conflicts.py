"""Whether the params of a stage fit those of the stages whose outputs it reads.

The stages check this, too, but only when they read these outputs: after the work of all stages before them.
"""

from collections.abc import Iterator, Mapping

from maskcast.inference.consistent_frames import CONTEXT_FRAMES, later_frames_text
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
    for section, values in params.items():
        for port, source in sources[section].items():
            if port not in CHECKS or source not in params:
                continue
            if conflict := CHECKS[port](section, values, source, params[source]):
                yield section, conflict
        if conflict := _masks(section, params, sources):
            yield section, conflict


def window_warnings(params: Mapping[str, Params]) -> Iterator[tuple[str, str]]:
    """Yields a section and a warning for each length of forecast windows that differs between sections."""
    for key in ("context_frames", "horizon"):
        sections: dict[int, list[str]] = {}
        for section, values in params.items():
            if (frames := getattr(values, key, None)) is not None:
                sections.setdefault(frames, []).append(section)
        if len(sections) > 1:
            listed = "; ".join(f"{frames} in {', '.join(names)}" for frames, names in sections.items())
            yield (
                next(iter(sections.values()))[0],
                f"{key} is {listed}; make it equal unless this is meant (docs/forecasting.md#other-windows)",
            )


def _encoder(section: str, values: Params, source: str, source_values: Params) -> str | None:
    """Checks that the pretrained encoder is that of the model; dense methods' decoders are not compared."""
    if not isinstance(source_values, EncoderTraining) or isinstance(source_values.method, NoMethod):
        return None
    if not isinstance(values, SegmentationTraining | DetectorTraining):
        return None
    needed = values.model.encoder_config
    if needed is None:
        return f"{section}.model {values.model.arch!r} has no encoder to initialize; set {source}.method to none"
    if source_values.model != needed:
        texts = [as_text(each.model_dump(mode="json")) for each in (source_values.model, needed)]
        return f"{source}.model is {texts[0]}, but {section}.model needs {texts[1]}; make them equal"
    weights = values.model.encoder_weights if isinstance(values.model, SmpConfig) else None
    if weights is not None:
        return f"{section}.model.encoder_weights and {source} both initialize the encoder; set one to null or none"
    return None


def _start(section: str, values: Params, source: str, source_values: Params) -> str | None:
    """Checks that a masker that starts from another one has its network."""
    if (
        not isinstance(values, SegmentationTraining)
        or not isinstance(source_values, SegmentationTraining)
        or values.anew
    ):
        return None
    networks = [_network(each.model) for each in (values, source_values)]
    if None in networks or networks[0] == networks[1]:
        return None
    return (
        f"{section}.model differs from {source}.model, whose weights it loads; make them equal, or set anew: true"
    )


def _network(model: SegmenterModelConfig) -> SegmenterModelConfig | None:
    """Returns the network of single frames in a model; None if it is a plugin's."""
    base = model.base if isinstance(model, RecurrentConfig) else model
    return base.unweighted if isinstance(base, UNetConfig | SmpConfig) else None


def _clips(section: str, values: Params, source: str, source_values: Params) -> str | None:
    """Checks that clips are long enough to forecast and score."""
    frames = getattr(getattr(source_values, "source", None), "frames", None)
    context, horizon = getattr(values, "context_frames", None), getattr(values, "horizon", None)
    if frames is None or context is None or horizon is None or getattr(values, "split", None) == "hidden":
        return None
    if frames >= context + horizon:
        return None
    return (
        f"{source}.source.frames is {frames}, but {section} needs clips of context_frames + horizon = "
        f"{context + horizon} frames; prepare longer clips, or lower these in each section that has them"
    )


def _masks(section: str, params: Mapping[str, Params], sources: Mapping[str, Mapping[str, str]]) -> str | None:
    """Checks that the masks of a context do not depend on later frames."""
    values, masks = params[section], sources[section].get("masks", "")
    context_frames = getattr(values, "context_frames", None)
    if context_frames is None or masks not in params:
        return None
    source = getattr(params.get(sources[masks].get("clips", "")), "source", None)
    if hasattr(values, "context"):  # evaluate: forecasters of frames, too, have baselines that start from masks
        used = values.context == "generated"
    else:
        split = getattr(values, "split", None)  # of predict
        used = _input(section, params, sources) == "masks" and (
            split is None or _has_later_frames(source, split, context_frames)
        )
    consistent_frames = getattr(params[masks], "consistent_frames", None)
    if consistent_frames == "things":
        things = getattr(source, "things", False) or getattr(source, "instances", False)
        consistent_frames = CONTEXT_FRAMES if things else None
    text = later_frames_text(consistent_frames, context_frames, section=section, masks_section=masks)
    return f"{masks} has {text}" if used and text else None


def _input(section: str, params: Mapping[str, Params], sources: Mapping[str, Mapping[str, str]]) -> str | None:
    """Returns what the forecaster of a section forecasts, masks or frames; None if it is unknown."""
    while section in params:
        if (model := getattr(params[section], "model", None)) is not None:
            return str(getattr(model, "input", "masks"))
        section = sources[section].get("pretrained") or sources[section].get("forecaster", "")
    return None


def _has_later_frames(source: object, split: str, context_frames: int) -> bool:
    """Whether clips of a split are known to have frames after the context."""
    frames = getattr(source, "context" if split == "hidden" else "frames", None)
    return frames is not None and frames > context_frames and getattr(source, split, None) != 0


CHECKS = {"encoder": _encoder, "start": _start, "clips": _clips}
"""Check of each input port: section and params of its stage, section and params of the stage that writes it."""
