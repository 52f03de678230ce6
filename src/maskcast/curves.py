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


def write_curves(folder: Path, curves: Mapping[str, Curve]) -> None:
    """Writes the curves of a model by stage, in the order of training, to its folder."""
    write_json(folder / NAME, curves)


def read_curves(folder: Path) -> dict[str, Curve]:
    """Returns the curves of a model by stage, in the order of training; empty if the model has none."""
    path = folder / NAME
    if not path.exists():
        return {}
    again = "remove it, or train again"
    return validated(dict[str, list[dict[str, float]]], read_json(path), path, "learning curves", again)
