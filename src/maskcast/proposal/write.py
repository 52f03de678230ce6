"""Looks at data, checks that a pipeline reads it, and writes `params.yaml`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from maskcast.data.inspection.findings import Findings
from maskcast.data.inspection.look import look
from maskcast.data.sources.base import RawClip
from maskcast.errors import MaskcastError
from maskcast.labels import LabelError
from maskcast.params import validate
from maskcast.proposal.duration import estimate
from maskcast.proposal.values import Proposal, propose_params, suits_pretrained
from maskcast.reading import counted
from maskcast.runner.stage import get_stage
from maskcast.storage.folder import Folder
from maskcast.writing import write_whole


@dataclass(frozen=True)
class Start:
    """What `init` has found out.

    Attributes:
        found: about the data.
        proposal: the params.
        clips: clips by split, as prepare_clips will list them.
        left_out: what it will leave out, and why.
        seconds: of ``dvc repro`` on this machine; None where nothing is trained.
        formula: how they were estimated.
    """

    found: Findings
    proposal: Proposal
    clips: Counter[str]
    left_out: list[tuple[str, str]]
    seconds: float | None
    formula: str

    @property
    def pipeline(self) -> str:
        """Whose params these are, as `maskcast new` and `maskcast pipeline` call it."""
        return "photographs" if self.found.photographs else "forecasting"

    def text(self, raw: Path) -> str:
        """Returns the params file."""
        head = f"Params of the pipeline {self.pipeline} for {raw.resolve()}, "
        head += f"proposed by `maskcast init`: {self.found.layout}.\n"
        head += "`maskcast <stage> --help` explains each key; comments give the reason for a value."
        if self.seconds is not None:
            head += (
                f"\n`dvc repro` was estimated to take {counted(max(1, round(self.seconds / 60)), 'minute')}: "
                f"{self.formula}."
            )
        return self.proposal.text(head)


def plan(raw: Path, find_weights: Callable[[], str] | None = None) -> Start:
    """Returns what to do with a folder of data.

    Args:
        raw: the folder.
        find_weights: returns pretrained ones, for `propose_params`; asked only where they suit the data.

    Raises:
        MaskcastError: when nothing can be made of it.
    """
    check_apart(raw)
    if raw.is_dir():
        Folder(raw).items()  # as fetch_dataset will: links that lead out of the folder are told now
    found = look(raw)
    weights = None
    if find_weights and suits_pretrained(found):
        try:
            weights = find_weights()
        except MaskcastError as error:
            found.warnings.append(f"the masker will be randomly initialised: {error}")
    proposal = propose_params(raw, found, weights)
    written = yaml.safe_load(proposal.text(""))
    checked = {name: validate(get_stage(name).params, values, name) for name, values in written.items()}
    prepare: Any = checked["prepare_clips"]
    listing = prepare.source.listing(raw, height=prepare.height, width=prepare.width, seed=prepare.seed)
    clips = Counter(clip.split for clip in listing.clips)
    if not clips:
        of_clips = sorted(listing.skipped, key=lambda one: one[0].startswith("*"))  # `*.txt`: of files beside them
        first = "; ".join(": ".join(one) for one in of_clips[:1])
        raise MaskcastError(f"{raw}: no clip of {found.frames} frames can be cut ({first}); give longer sequences")
    lacking = [split for split in ("train", "val") if not clips[split]] if found.trainable else []
    if lacking:
        raise MaskcastError(
            f"{raw}: no clip of split {lacking[0]!r} ({dict(clips)}): a clip to learn from and one to be scored "
            f"on need {found.frames} frames each; label a second sequence, or longer ones"
        )
    found.warnings[:0] = _damaged(listing.clips)  # first: without them there may be nothing to learn from
    seconds, formula = None, ""
    if found.trainable:
        seconds, formula = estimate(proposal.sections, clips.total() * found.frames, clips["val"] * found.frames)
    return Start(found, proposal, clips, listing.skipped, seconds, formula)


def _damaged(clips: Sequence[RawClip]) -> list[str]:
    """Reads the first labelled clip of each split, as prepare_clips will, and says which cannot be read.

    Raises:
        LabelError: where it would stop there, e.g. at masks of another size than their frames.
    """
    damaged = []
    for clip in {clip.split: clip for clip in reversed(clips) if clip.kind == "labelled"}.values():
        try:
            clip.load()
        except LabelError:
            raise
        except MaskcastError as error:
            damaged.append(f"clip {clip.id} ({clip.split}) will be left out: {error}")
    return damaged


def check_apart(raw: Path) -> None:
    """Refuses a folder that the pipeline writes into.

    Raises:
        MaskcastError: when `data` lies in it.
    """
    own = Path("data").resolve()
    if raw.resolve() in (own, *own.parents):
        raise MaskcastError(
            f"{raw}: holds {own}, where the pipeline writes; move your data elsewhere, or name their own folder"
        )


def check_free(path: Path, *, force: bool) -> None:
    """Refuses a params file that is there already.

    Raises:
        MaskcastError: without ``force``; or it is a folder.
    """
    if path.is_dir():
        raise MaskcastError(f"{path}: is a folder; name a file by --params")
    if path.exists() and not force:
        raise MaskcastError(f"{path}: already there; replace it by --force, or name another file by --params")


def write_params(path: Path, text: str) -> None:
    """Writes a params file, whole or not at all.

    Raises:
        MaskcastError: when it cannot be written.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise MaskcastError(
            f"{path}: cannot be written ({error.strerror}); choose another file (--params)"
        ) from None
