"""The output of `maskcast init`: a table of findings, warnings, and the next commands."""

import textwrap
from contextlib import suppress
from pathlib import Path

from maskcast.data.inspection.findings import Findings
from maskcast.errors import MaskcastError
from maskcast.proposal.plan import ParamsPlan
from maskcast.reading import format_bytes, pluralize
from maskcast.runner.dvc_calls import read_calls

DEFAULT_PIPELINE = "forecasting"  # default pipeline of the commands
PARAMS_FILE = "params.yaml"  # params file that dvc.yaml reads
PHOTOGRAPHS_SECTIONS = {  # that the dvc.yaml of the pipeline of photographs reads
    *("fetch_dataset", "prepare_clips", "train_masker", "generate_masks", "evaluate_video", "register_segmenter")
}
MAX_WARNINGS = 6  # maximum number of warnings and left-out items shown


def format_plan(plan: ParamsPlan, raw: Path, params: Path) -> str:
    """Returns the text for a terminal."""
    lines = [str(raw), *(_row(name, text) for name, text in _rows(plan))]
    warnings = plan.findings.warnings + [f"left out: {item}: {reason}" for item, reason in plan.left_out]
    if warnings:
        lines += ["", *(_wrapped(f"check: {text}") for text in warnings[:MAX_WARNINGS])]
    if len(warnings) > MAX_WARNINGS:
        lines.append(f"check: {len(warnings) - MAX_WARNINGS} more, which prepare_clips will report")
    lines.append("")
    if plan.seconds is not None:
        lines.append(
            _wrapped(f"time: about {_minutes(plan.seconds)} for dvc repro on this machine: {plan.formula}")
        )
    lines += [
        f"wrote {params}; read it, then:",
        "  dvc repro" if plan.findings.trainable else "  dvc repro prepare_clips",
    ]
    if plan.findings.trainable and plan.pipeline != DEFAULT_PIPELINE:
        lines.append(f"or on Kubeflow: maskcast pipeline submit --pipeline {plan.pipeline}")
    lines += _project_hint(plan, params)
    if not plan.findings.trainable:
        unlabelled = "some of them" if plan.findings.photographs else "the frames of two sequences"
        lines += ["", _wrapped(LABEL_HINT.format(unlabelled))]
    return "\n".join(lines)


def check_project(plan: ParamsPlan, params: Path) -> None:
    """Refuses to write the params of one pipeline where another reads them.

    Raises:
        MaskcastError: the file is that of a project whose dvc.yaml reads a section that the plan does not have.
    """
    if params.name == PARAMS_FILE and (missing := _missing_section(plan, params)):
        raise MaskcastError(
            f"{params}: not written: the dvc.yaml beside it reads section {missing}, which these data do not "
            f"need; `maskcast new FOLDER --pipeline {plan.pipeline}` creates a project for them, run init there, "
            "or choose another file with --params"
        )


def is_for_photographs(params: Path) -> bool:
    """Whether the dvc.yaml beside a params file is that of the pipeline of photographs: it reads what that has."""
    return params.name == PARAMS_FILE and {*_sections_read(params)} == PHOTOGRAPHS_SECTIONS


def _missing_section(plan: ParamsPlan, params: Path) -> str | None:
    """Returns the first section that the dvc.yaml beside a file reads and the plan lacks, if there is one."""
    return next((name for name in _sections_read(params) if name not in plan.proposal.sections), None)


def _sections_read(params: Path) -> list[str]:
    """Returns the sections that the dvc.yaml beside a file reads, if there is one."""
    with suppress(MaskcastError):  # errors in it, or contents that only DVC can read, are not reported here
        calls = read_calls(params.with_name("dvc.yaml"))[0].values()
        return [call.name for call in calls if call.params_file == PARAMS_FILE]
    return []


def _project_hint(plan: ParamsPlan, params: Path) -> list[str]:
    """Returns what to do before the next commands, if they would not work in the folder of the params."""
    new = f"`maskcast new FOLDER --pipeline {plan.pipeline}` creates one"
    if not params.with_name("dvc.yaml").exists():
        return [_wrapped(f"this needs a project, but the folder of the file has no dvc.yaml ({new})")]
    if missing := _missing_section(plan, params):
        reason = f"the dvc.yaml beside the file also reads section {missing}, which the file does not have"
        return [
            _wrapped(f"this needs a project of the pipeline {plan.pipeline}: {reason} ({new}; run init there)")
        ]
    if params.name != PARAMS_FILE:
        return [f"first copy it to params.yaml, which dvc.yaml reads: cp {params} {PARAMS_FILE}"]
    return []


FORECASTER_TEXT = {
    "flow": "flow: extrapolates the optical flow of the masks, and its masks are not trained; proposed because it "
    "suits moving cameras and objects that bend; for a static camera also try objects (see the file's comments)",
    "objects": "objects: tracks objects and extrapolates their motion",
}
LABEL_HINT = (
    "There are no masks, so no masker can be trained yet: label {}, put the masks beside "
    "them as docs/your-data.md shows, and run init again. Frames without masks then serve as unlabelled clips."
)


def _rows(plan: ParamsPlan) -> list[list[str]]:
    found = plan.findings
    source = found.source
    patterns: dict[str, object] = {
        key: source[key] for key in ("images", "masks", "mask_suffix", "offset") if key in source
    }
    if "labels" in source:
        more = len(source["labels"]) - 1
        patterns["labels"] = source["labels"][0] + (f" and {more} more" if more else "")
    details = ", ".join(f"{key} {value}" for key, value in patterns.items())
    rows = [["layout", found.layout + (f": {details}" if details else "")]]
    if found.photographs:
        masked = f"{sum(found.labelled.values())} with masks" if found.labelled else "none with masks"
        rows.append(["photographs", f"{sum(found.sequences.values())}, {masked}"])
    elif found.sequences:
        rows += _sequence_rows(found)
    sizes = ", ".join(f"{h}x{w}" for (h, w), _ in found.sizes.most_common(3))
    size = plan.proposal.sections["prepare_clips"]
    rows.append(["size", f"{sizes or '?'}; clips become {size['height']}x{size['width']} (height x width)"])
    if len({h > w for h, w in found.sizes}) > 1:
        rows.append(
            ["orientation", "portrait and landscape frames: resized to one size, which distorts the rarer ones"]
        )
    if found.rates:
        span = (found.frames - 1) * source.get("stride", 1) + 1
        low, high = min(found.rates), max(found.rates)
        lasts = _between(f"{span / high:.1f}", f"{span / low:.1f}")
        rows.append(["frame rate", f"{_between(f'{low:.3g}', f'{high:.3g}')} per second: a clip lasts {lasts} s"])
    rows += [list(row) for row in found.rows]
    if "splits" in found.reasons:
        rows.append(["splits", found.reasons["splits"]])
    clips = ", ".join(f"{count} {split}" for split, count in plan.clips.items())
    if found.trainable:
        model = plan.proposal.sections["train_masker"]["model"]
        first = "initialised with ImageNet weights" if "encoder_weights" in model else "randomly initialised"
        rows.append(["masker", f"{model['arch']}, {first}"])
        if forecaster := plan.proposal.sections.get("pretrain_forecaster"):
            rows.append(["forecaster", FORECASTER_TEXT[forecaster["model"]["arch"]]])
    left_out = f"; left out: {len(plan.left_out)}" if plan.left_out else ""
    rows.append(["clips", f"{clips}{left_out}; their frames take {format_bytes(plan.frame_bytes)}"])
    return rows


def _between(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _sequence_rows(found: Findings) -> list[list[str]]:
    lengths = sorted(found.sequences.values())
    between = _between(str(lengths[0]), str(lengths[-1]))
    masked = "none with masks"
    if found.labelled:
        whole = pluralize(sum(found.sequences[name] for name in found.labelled), "frame")
        masked = f"{len(found.labelled)} with masks on {sum(found.labelled.values())} of {whole}"
    stride = found.source.get("stride", 1)
    spans = {step: (found.frames - 1) * step + 1 for step in (stride, 2 * stride)}
    longest = [max(map(len, found.runs(name))) for name in found.sequences]  # longest part without a gap
    fits = "; ".join(
        f"{sum(part >= span for part in longest)} of {len(longest)} at stride {step} ({span} frames)"
        for step, span in spans.items()
    )
    clip_length = f"{found.context} context + {found.context} forecast frames: long enough are {fits}"
    return [["sequences", f"{len(lengths)} ({between} frames each), {masked}"], ["clip length", clip_length]]


def _row(name: str, text: str) -> str:
    first, rest = f"  {name:13s}", " " * 15
    return textwrap.fill(text, 80, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _minutes(seconds: float) -> str:
    return pluralize(max(1, round(seconds / 60)), "minute") if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 80, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
