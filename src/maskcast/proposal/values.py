"""Proposes params of all stages for a folder of data, and writes them as `params.yaml` with reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import to_jsonable_python

from maskcast.data.inspection.findings import MAX_CONTEXT, Findings

MAX_LONG_SIDE = 240  # maximum longer side of the clips, in pixels
SIZE_MULTIPLE = 8
CROP_SIZE = (64, 96)
ENCODER = "tu-tf_efficientnet_lite0"  # smallest of the measured encoders (docs/decisions/2026-11-28-pretrained.md)
NO_FLIP = {"hflip": 0}
UNET = {"arch": "unet", "width": 16}
OBJECT_LAYOUTS = ("clevrer", "competition")  # layouts with separate objects and a static camera
MIN_SHORT_SIDE = 64  # minimum shorter side of frames for a pretrained encoder
CROP_ON_OBJECT_FROM = 0.6  # share of background above which crops are drawn on objects
MAX_LINE = 100  # maximum line length of the file


@dataclass(frozen=True)
class Proposal:
    """Proposed params of the pipeline.

    Attributes:
        sections: values by stage.
        reasons: comments of keys, by dotted path.
    """

    sections: dict[str, dict[str, Any]]
    reasons: dict[str, str] = field(default_factory=dict)

    def text(self, head: str) -> str:
        """Returns the text of a params file; ``head`` becomes the comment at the top."""
        lines = [f"# {line}" for line in head.splitlines()]
        for stage, values in self.sections.items():
            lines += ["", f"{stage}:", *_lines(values, self.reasons, stage, 1)]
        return "\n".join(lines) + "\n"


def propose_params(raw: Path, found: Findings, weights: str | None = None) -> Proposal:
    """Returns params that suit the findings.

    Args:
        raw: folder of the data.
        found: result of `inspect_folder`.
        weights: pretrained weights of ``ENCODER``, in the form of ``encoder_weights``; None for random
            initialisation.
    """
    (height, width), size_reason = _size(found)
    context = {} if found.context == MAX_CONTEXT else {"context_frames": found.context, "horizon": found.context}
    seen = context | ({"min_context_frames": max(1, found.context // 2)} if context else {})
    clips: dict[str, Any] = {"source": found.source, "height": height, "width": width}
    if not found.trainable:
        clips["required_splits"] = []
    sections: dict[str, dict[str, Any]] = {
        "fetch_dataset": {"uri": str(raw.resolve())},
        "prepare_clips": clips,
        **({} if found.photographs else {"pretrain_encoder": _encoder(weights)}),
        "train_masker": _from_pretrained(found, weights) if weights else _from_random(found, (height, width)),
        "generate_masks": {"confidence_levels": 8},
    }
    if found.photographs:
        sections |= {"evaluate_video": {"pictures": 6}, "register_segmenter": {"gate": {"margin": 0.01}}}
    else:
        if found.is_partly_labelled:
            sections["generate_masks"]["propagated"] = {"frames": 8}
        sections |= {
            **_forecasting(found, seen),
            "evaluate": {**context, "pictures": 6},
            "predict": {**context, "png": True},
            "register_models": {"gate": {"margin": 0.01}},
        }
    reasons = {f"prepare_clips.source.{key}": text for key, text in found.reasons.items()} | {
        "fetch_dataset.uri": "the folder that was inspected; its files are linked or copied to data/raw",
        "prepare_clips.source.layout": found.layout,
        "prepare_clips.height": size_reason,
        "generate_masks.propagated": "labelled frames keep their masks, and optical flow propagates them",
        "train_masker.training": "a short first run: raise epochs for better masks",
        "train_masker.model": "docs/ssl.md: benefits and origin of ImageNet weights",
        "pretrain_encoder.method": "docs/ssl.md: ImageNet weights, or self-supervised pretraining",
        "pretrain_forecaster.model": "docs/forecasting.md: which forecaster to choose",
    }
    if sections.get("pretrain_forecaster", {}).get("model") == {"arch": "flow"}:
        reasons["pretrain_forecaster.model"] = (
            "not trained, suits moving cameras and objects that bend; for rigid objects and a static camera try "
            "{arch: objects, whole: true, several: true} with 300 steps: docs/forecasting.md"
        )
        reasons["finetune_forecaster.training"] = (
            "finetuning does not change flow, so one step is enough; of objects, take 100 steps"
        )
    if not found.trainable:
        reasons["prepare_clips.required_splits"] = (
            "no masks, so no training and no scores: remove this line when there are labels"
        )
    if found.class_shares:
        reasons["train_masker.augment.crop_on_object"] = (
            f"class 0 has {_background(found):.0%} of the labelled pixels"
        )
    if found.one_sided:
        reason = f"a flip would show {found.one_sided[0]!r} on the wrong side"
        reasons |= {"train_masker.augment.hflip": reason, "pretrain_forecaster.flip": reason}
    if context:
        reasons["evaluate.context_frames"] = found.reasons["frames"]
    return Proposal(sections, reasons)


def with_predicted_split(proposal: Proposal, clips: Mapping[str, int]) -> Proposal:
    """Returns the proposal with a split for `predict` that has clips: hidden ones, or else unlabelled ones.

    Args:
        proposal: result of `propose_params`.
        clips: number of clips by split.
    """
    if "predict" not in proposal.sections or clips.get("hidden"):
        return proposal
    predict = proposal.sections["predict"]
    if clips.get("unlabeled"):
        predict = {"split": "unlabeled"} | predict
        reasons = {"predict.split": "no clip is hidden, which is the default here"}
    else:
        reasons = {"predict.png": "no clip is hidden or unlabeled: `split: val` here forecasts those of val"}
    return Proposal(proposal.sections | {"predict": predict}, proposal.reasons | reasons)


def suits_pretrained(found: Findings) -> bool:
    """Returns whether a masker should start from pretrained weights.

    Within a single sequence, a small network with random initialisation is better. In small frames, an encoder
    with stride 32 sees almost nothing.
    """
    one_sequence = found.source.get("split_by") == "time" and not found.photographs
    return found.trainable and min(_size(found)[0]) >= MIN_SHORT_SIDE and not one_sequence


def _encoder(weights: str | None) -> dict[str, Any]:
    return {
        "model": {"arch": "smp", "encoder": ENCODER} if weights else UNET,
        "method": {"name": "none"},
        "training": _training(4, 50, 64, 0.06, 20),
    }


def _forecasting(found: Findings, seen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns params of both stages that train a forecaster; the camera of most videos moves, or objects bend."""
    if found.source["layout"] in OBJECT_LAYOUTS:
        model: dict[str, Any] = {"arch": "objects", "whole": True}
        first, second = _training(3, 100, 32, 2.0e-3, 50), _training(2, 50, 32, 5.0e-4, 10)
    else:
        model, first, second = {"arch": "flow"}, _training(1, 30, 8, 2.0e-3, 0), _training(1, 1, 8, 5.0e-4, 0)
    flip = {"flip": 0} if found.one_sided else {}
    return {
        "pretrain_forecaster": {"model": model, **seen, **flip, "training": first},
        "finetune_forecaster": {**seen, **flip, "training": second},
    }


def _from_pretrained(found: Findings, weights: str) -> dict[str, Any]:
    """Returns params of train_masker for a pretrained encoder, which is trained on whole frames."""
    return {
        "model": {"arch": "smp_unet", "encoder": ENCODER, "encoder_weights": weights},
        **_masker(found),
        **({"augment": NO_FLIP} if found.one_sided else {}),
        "training": _training(5, 45, 4, 1.0e-3, 50),
    }


def _from_random(found: Findings, size: tuple[int, int]) -> dict[str, Any]:
    """Returns params of train_masker for random initialisation, with random crops, partly on objects."""
    crop = [min(most, side) for most, side in zip(CROP_SIZE, size, strict=True)]
    return {
        "model": UNET,
        **_masker(found),
        "augment": (NO_FLIP if found.one_sided else {})
        | {"crop": crop, "crop_on_object": 0.9 if _background(found) > CROP_ON_OBJECT_FROM else 0.0},
        "training": _training(5, 100, 16, 5.0e-3, 50),
    }


def _masker(found: Findings) -> dict[str, Any]:
    return {
        "loss": {"ce": 1.0, "dice": 0.0, "focal": 0.0, "background_weight": 1.0},
        # one of so many labelled frames
        "val_frame_step": 1 if found.is_partly_labelled or found.photographs else 4,
    }


def _background(found: Findings) -> float:
    return next(iter(found.class_shares.values()), 1.0)


def _training(epochs: int, steps: int, batch: int, rate: float, warmup: int) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "steps_per_epoch": steps,
        "batch_size": batch,
        "learning_rate": rate,
        "warmup_steps": warmup,
    }


def _size(found: Findings) -> tuple[tuple[int, int], str]:
    """Returns the size of the clips, with the aspect ratio of most frames, and the reason."""
    if not found.sizes:
        return (80, 120), "no frame could be read: correct height and width"
    (height, width), _ = found.sizes.most_common(1)[0]
    scale = min(1.0, MAX_LONG_SIDE / max(height, width))
    size = tuple(
        max(SIZE_MULTIPLE, round(side * scale / SIZE_MULTIPLE) * SIZE_MULTIPLE) for side in (height, width)
    )
    sizes = ", ".join(f"{h}x{w}" for (h, w), _ in found.sizes.most_common(3))
    return (
        size[0],
        size[1],
    ), f"frames have {sizes} (height x width); smaller clips are faster; prepare_clips says what they lose"


def _lines(values: Mapping[str, Any], reasons: Mapping[str, str], path: str, depth: int) -> list[str]:
    lines = []
    for key, value in values.items():
        key_path, start = f"{path}.{key}", f"{'  ' * depth}{_flow(key)}:"
        reason = f" # {reasons[key_path]}" if key_path in reasons else ""
        nested = isinstance(value, Mapping) and any(other.startswith(f"{key_path}.") for other in reasons)
        if nested or (
            isinstance(value, Mapping) and key in ("source", "training", "splits", "model") and len(value) > 2
        ):
            lines += [f"{start}{reason}", *_lines(value, reasons, key_path, depth + 1)]
            continue
        line = f"{start} {_flow(value)}"
        if reason and len(line) + len(reason) > MAX_LINE:
            lines.append(f"{'  ' * depth}{reason.strip()}")
            reason = ""
        lines.append(line + reason)
    return lines


def _flow(value: Any) -> str:
    """Returns a key or value in YAML, on one line."""
    text = yaml.dump(
        to_jsonable_python(value),  # tuples become lists
        Dumper=_QuotingDumper,
        default_flow_style=True,
        width=10**6,
        sort_keys=False,
        allow_unicode=True,
    )
    return text.removesuffix("...\n").strip()


class _QuotingDumper(yaml.SafeDumper):
    """Quotes texts that start like numbers, because some YAML readers read 0016E5 as a number."""


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    numeric = value[:1].isdigit() or value[:1] in ".+-"
    style = '"' if "\n" in value else "'" if numeric else None  # a key must be on one line
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_QuotingDumper.add_representer(str, _represent_text)
