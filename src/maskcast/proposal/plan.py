"""Inspects data, checks that a pipeline can read it, and writes `params.yaml`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml

from maskcast.data.inspection.findings import Findings
from maskcast.data.inspection.inspect_folder import inspect_folder
from maskcast.data.sources.base import RawClip
from maskcast.errors import MaskcastError
from maskcast.labels import LabelError
from maskcast.params import validate
from maskcast.progress import doing
from maskcast.proposal.duration import estimate_seconds
from maskcast.proposal.values import Proposal, propose_params, suits_pretrained, with_predicted_split
from maskcast.reading import pluralize
from maskcast.runner.stage import get_stage
from maskcast.storage.folder import Folder
from maskcast.writing import write_atomically

OUTPUTS = [Path(path) for path in ("data/raw", "data/clips", "data/masks", "models", "results")]


@dataclass(frozen=True)
class ParamsPlan:
    """The result of `init`.

    Attributes:
        findings: findings about the data.
        proposal: proposed params.
        clips: number of clips by split, as prepare_clips will list them.
        left_out: items that prepare_clips will leave out, with reasons.
        seconds: estimated time of ``dvc repro`` on this machine; None if nothing is trained.
        formula: how the time was estimated.
        frame_bytes: size of the frames of all clips, which are stored uncompressed.
    """

    findings: Findings
    proposal: Proposal
    clips: Counter[str]
    left_out: list[tuple[str, str]]
    seconds: float | None
    formula: str
    frame_bytes: int

    @property
    def pipeline(self) -> str:
        """Name of the pipeline for these params, as in `maskcast new` and `maskcast pipeline`."""
        return "photographs" if self.findings.photographs else "forecasting"

    def text(self, raw: Path) -> str:
        """Returns the text of the params file."""
        head = f"Params of the pipeline {self.pipeline} for {raw.resolve()}, "
        head += f"proposed by `maskcast init`: {self.findings.layout}.\n"
        head += "`maskcast <stage> --help` explains each key; comments give the reason for a value."
        if self.seconds is not None:
            head += (
                f"\n`dvc repro` was estimated to take {pluralize(max(1, round(self.seconds / 60)), 'minute')}: "
                f"{self.formula}."
            )
        return self.proposal.text(head)


def plan_params(
    raw: Path, find_weights: Callable[[], str] | None = None, *, photographs: bool = False
) -> ParamsPlan:
    """Returns the proposal for a folder of data.

    Args:
        raw: folder of the data.
        find_weights: returns pretrained weights for `propose_params`; only called if these suit the data.
        photographs: whether the params are for the pipeline of photographs.

    Raises:
        MaskcastError: if the data cannot be used.
    """
    check_outside_outputs(raw)
    with doing(f"looking at the files of {raw}"):
        if raw.is_dir():
            Folder(raw).items()  # like fetch_dataset, refuses links out of the folder
        found = inspect_folder(raw, photographs=photographs)
    weights = None
    if find_weights and suits_pretrained(found):
        try:
            with doing("asking the Hugging Face hub for pretrained weights"):
                weights = find_weights()
        except MaskcastError as error:
            found.warnings.append(f"the masker will be randomly initialised: {error}")
    proposal = propose_params(raw, found, weights)
    written = yaml.safe_load(proposal.text(""))
    checked = {name: validate(get_stage(name).params, values, name) for name, values in written.items()}
    prepare: Any = checked["prepare_clips"]
    with doing("listing the clips"):
        listing = prepare.source.listing(raw, height=prepare.height, width=prepare.width, seed=prepare.seed)
    clips = Counter(clip.split for clip in listing.clips)
    if not clips:
        skipped = sorted(listing.skipped, key=lambda item: item[0].startswith("*"))  # `*.txt`: not clips
        first = "; ".join(": ".join(item) for item in skipped[:1])
        raise MaskcastError(f"{raw}: no clip of {found.frames} frames can be cut ({first}); give longer sequences")
    missing = [split for split in ("train", "val") if not clips[split]] if found.trainable else []
    if missing:
        raise MaskcastError(
            f"{raw}: no clip of split {missing[0]!r} ({dict(clips)}): training and validation each need a clip of "
            f"{found.frames} frames; label a second sequence, or longer ones"
        )
    with doing("reading a clip of each split"):
        unreadable, clip_seconds = _read_clips(listing.clips, (prepare.height, prepare.width))
    found.warnings[:0] = unreadable  # first, as they may leave nothing to learn from
    num_frames = clips.total() * found.frames
    seconds, formula = None, ""
    if found.trainable:
        with doing("measuring the speed of training and masking"):
            seconds, formula = estimate_seconds(
                proposal.sections, num_frames, clips["val"] * found.frames, clips.total(), clip_seconds
            )
    size = num_frames * 3 * prepare.height * prepare.width
    return ParamsPlan(found, with_predicted_split(proposal, clips), clips, listing.skipped, seconds, formula, size)


def _read_clips(clips: Sequence[RawClip], size: tuple[int, int]) -> tuple[list[str], float]:
    """Reads the first labelled clip of each split, as prepare_clips will.

    Args:
        clips: all clips.
        size: (height, width) to which prepare_clips resizes.

    Returns:
        Warnings about unreadable ones and resized masks, and the seconds that the fastest took.

    Raises:
        LabelError: on faults that would stop prepare_clips, e.g. masks whose size differs from their frames'.
    """
    damaged, notes, seconds = list[str](), list[str](), list[float]()
    for clip in {clip.split: clip for clip in reversed(clips) if clip.kind == "labelled"}.values():
        start = perf_counter()
        try:
            resized = clip.read(size).mask_note(clip.id)
            notes += [resized] if resized else []
            seconds.append(perf_counter() - start)
        except LabelError:
            raise
        except MaskcastError as error:
            damaged.append(f"clip {clip.id} ({clip.split}) will be left out: {error}")
    return [*damaged, *notes[:1]], min(seconds, default=0.0)


def check_outside_outputs(raw: Path) -> None:
    """Refuses a folder that the pipeline writes into.

    Raises:
        MaskcastError: if it contains an output of the pipeline, or is in one.
    """
    folder = raw.resolve()
    for outputs in map(Path.resolve, OUTPUTS):
        if outputs != folder and outputs.is_relative_to(folder):
            raise MaskcastError(
                f"{raw}: contains {outputs}, where the pipeline writes; move your data elsewhere, or give a "
                "subfolder"
            )
        if folder.is_relative_to(outputs):
            place = "is a folder" if outputs == folder else f"is in {outputs},"
            raise MaskcastError(f"{raw}: {place} where the pipeline writes; move your data elsewhere")


def check_overwrite(path: Path, *, force: bool) -> None:
    """Refuses to overwrite a params file.

    Raises:
        MaskcastError: if it exists and ``force`` is not set, or it is a folder.
    """
    if path.is_dir():
        raise MaskcastError(f"{path}: is a folder; choose a file with --params")
    if path.exists() and not force:
        raise MaskcastError(
            f"{path}: already exists; overwrite it with --force, or choose another file with --params"
        )


def write_params(path: Path, text: str) -> None:
    """Writes a params file atomically.

    Raises:
        MaskcastError: if it cannot be written.
    """
    try:
        write_atomically(path, text)
    except OSError as error:
        raise MaskcastError(
            f"{path}: cannot be written ({error.strerror}); choose another file (--params)"
        ) from None
