"""Learning curves: what each epoch of a training gave, kept beside the weights, so that an evaluation can show it.

learning.json   by stage, the epochs in order: ``epoch``, the mean training ``loss`` (not of epoch 0, the weights
                it started with), and the validation scores
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from maskcast.reading import checked, read_json
from maskcast.writing import write_json

NAME = "learning.json"
Curve = Sequence[Mapping[str, float]]


def write_curve(folder: Path, stage: str, curve: Curve, before: Path | None = None) -> None:
    """Writes the curve of a stage into the folder of its model, after those of the model that it started from."""
    curves = {**(read_curves(before) if before else {}), stage: list(curve)}
    write_json(folder / NAME, curves)


def read_curves(folder: Path) -> dict[str, Curve]:
    """Returns the curves of a model by stage, the first stage first; none of a model that came without."""
    path = folder / NAME
    if not path.exists():
        return {}
    again = "remove it, or train again"
    return checked(dict[str, list[dict[str, float]]], read_json(path), path, "learning curves", again)
