"""Learning curves: the results of each epoch of a training, stored beside the weights for evaluations.

learning.json   for each stage a list of epochs: ``epoch``, the mean training ``loss`` (not for epoch 0, which
                is the initial weights), and the validation scores
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from maskcast.reading import read_json, validated
from maskcast.writing import write_json

NAME = "learning.json"
Curve = Sequence[Mapping[str, float]]


def write_curve(folder: Path, stage: str, curve: Curve, before: Path | None = None) -> None:
    """Writes the curve of a stage to the folder of its model, after the curves of the initial model ``before``."""
    curves = {**(read_curves(before) if before else {}), stage: list(curve)}
    write_json(folder / NAME, curves)


def read_curves(folder: Path) -> dict[str, Curve]:
    """Returns the curves of a model by stage, in the order of training; empty if the model has none."""
    path = folder / NAME
    if not path.exists():
        return {}
    again = "remove it, or train again"
    return validated(dict[str, list[dict[str, float]]], read_json(path), path, "learning curves", again)
