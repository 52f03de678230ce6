"""Finds masks of one set whose values have another meaning in each sequence, or in some of them.

The masks of two laboratories, or of two programs, may differ in numbers, or be inverted. Objects are numbered anew
in each video.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskcast.data.masks.propose_params import MaskProposal
from maskcast.data.masks.survey import JPEG_TOLERANCE, MIN_GREY_STEP, MaskSurvey
from maskcast.labels import IGNORE
from maskcast.reading import first_few

MAX_SHOWN = 3  # maximum number of sequences in a message
MIN_SHARE = 0.1  # of the sequences that hold greys; of fewer, 255 may be an object without label
MIN_NUMBERED = 0.8  # of the sequences, if values number objects
MIN_OBJECTS = 3  # in the sequence with most; classes 1 and 2 may be nested: organ and tumour
INVERTED_SHARE = 0.75  # of a sequence's pixels; inverted masks leave less than the rest


def propose_for_ids_and_greys(survey: MaskSurvey, masks: Mapping[str, Sequence[Path]]) -> MaskProposal | None:
    """Proposes how to read masks that hold ids 1, 2, ... in some sequences and evenly spread greys in the others.

    Args:
        survey: the contents of the masks.
        masks: masks by sequence.

    Returns:
        A proposal in which the greys are the classes of the ids; None for other masks.
    """
    if survey.colours or survey.panoptic is not None:
        return None
    values = {name: {*counts} - {0} for name, counts in _counts_by_sequence(survey, masks).items()}
    ids = {value for mine in values.values() if max(mine, default=0) < MIN_GREY_STEP for value in mine}
    greys = sorted({*survey.values} - {0} - ids)
    in_greys = sorted(name for name, mine in values.items() if mine & {*greys})
    if sorted(ids) != [*range(1, len(greys) + 1)] or any(values[name] & ids for name in in_greys):
        return None
    if len(in_greys) < MIN_SHARE * len(values):
        return None
    white = max(greys, default=0)
    are_even = all(abs(grey - white * k / len(greys)) <= 1 for k, grey in enumerate(greys, 1))
    if white not in range(IGNORE - JPEG_TOLERANCE, IGNORE + 1) or not are_even:
        return None
    names = ["background", *(f"class {k}" for k in sorted(ids))] if len(ids) > 1 else ["background", "foreground"]
    table = {"0": names[0]} | {
        str(value): names[k] for row in (sorted(ids), greys) for k, value in enumerate(row, 1)
    }
    note = (
        f"{_some(in_greys)} hold {survey.format_values(greys)} where others hold "
        f"{survey.format_values(sorted(ids))}, so these are taken as the same classes: if they are not, edit "
        "source.values"
    )
    return MaskProposal({"classes": names, "values": table}, (note,))


def inverted_note(survey: MaskSurvey, masks: Mapping[str, Sequence[Path]]) -> str:
    """Returns a sentence if masks of two values seem to be inverted in some sequences; else an empty one.

    Args:
        survey: the contents of the masks.
        masks: masks by sequence.
    """
    foreground = [value for value in survey.values if value]
    if survey.colours or survey.panoptic is not None or len(foreground) != 1:
        return ""
    counts = _counts_by_sequence(survey, masks)
    shares = {name: one[foreground[0]] / one.total() for name, one in counts.items()}
    high = [name for name, share in shares.items() if share > INVERTED_SHARE]
    low = [name for name, share in shares.items() if share < 1 - INVERTED_SHARE]
    if not high or not low or len(high) + len(low) < len(shares):
        return ""
    most, least = (sum(shares[name] for name in part) / len(part) for part in (high, low))
    return (
        f"the foreground, {foreground[0]}, has {most:.0%} of the pixels in {_some(high)}, and {least:.0%} in "
        "others: if masks are inverted in one of these, invert them there"
    )


def object_numbers_note(survey: MaskSurvey, masks: Mapping[str, Sequence[Path]]) -> str:
    """Returns a sentence if values may number the objects of each sequence, as in DAVIS 2017; else an empty one.

    Then most sequences hold 1, 2, ... without gaps, and not all as many. A mask in which an object is hidden may
    leave a gap.

    Args:
        survey: the contents of the masks.
        masks: masks by sequence.
    """
    if survey.colours or survey.panoptic is not None:
        return ""
    of_sequences = [{*counts} - {0, survey.void} for counts in _counts_by_sequence(survey, masks).values()]
    counted = [len(values) for values in of_sequences if values and max(values) == len(values)]
    if len(counted) < MIN_NUMBERED * len(of_sequences) or not counted:
        return ""
    few, many = min(counted), max(counted)
    if few == many or many < MIN_OBJECTS:
        return ""
    return (
        f"most sequences hold 1, 2, ... without gaps, up to {few} in some and {many} in others, as if objects "
        "were numbered (DAVIS 2017, YouTube-VOS): if they are, set classes: [background, object] and encoding: "
        "binary; instances: true keeps them apart"
    )


def _counts_by_sequence(survey: MaskSurvey, masks: Mapping[str, Sequence[Path]]) -> dict[str, Counter[int]]:
    """Returns the number of pixels by value, for sequences of which masks were read."""
    found = {}
    for name, paths in masks.items():
        counts = Counter[int]()
        for path in paths:
            counts.update(survey.counts_by_file.get(path, {}))
        if counts:
            found[name] = counts
    return found


def _some(names: Sequence[str]) -> str:
    """Returns the first few names as text."""
    return first_few(names, MAX_SHOWN, f" and {len(names) - MAX_SHOWN} more")
