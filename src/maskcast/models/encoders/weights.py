"""The values of a config's ``encoder_weights``; nothing here imports torch."""

import re
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

PRETRAINED = "pretrained"
HUB = "hf-hub:"
_PLACE = re.compile(r"[\w.-]+/[\w.-]+@[\w./-]+")
_PICKLES = (".bin", ".pth", ".pt", ".pkl", ".ckpt", ".tar", ".npz")


def _known(value: str) -> str:
    if value.startswith(HUB):
        place = value.removeprefix(HUB)
        if "@" not in place:
            raise ValueError(f"{HUB} needs a revision, so that it names the same weights later: {value}@<commit>")
        if not _PLACE.fullmatch(place):
            raise ValueError(f"must be {HUB}<owner>/<name>@<revision>")
    elif value.endswith(_PICKLES):
        raise ValueError("is pickle, which runs code when it is read; give a safetensors file")
    elif not value:
        raise ValueError(f"must be {PRETRAINED}, {HUB}<owner>/<name>@<revision>, or a local path; null is none")
    return value if value.startswith(HUB) else str(PurePath(value))


EncoderWeights = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, PurePath) else value),
    AfterValidator(_known),
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


def check_digest(weights: str | None, sha256: str | None) -> None:
    """Checks that a digest is only given together with weights.

    Raises:
        ValueError: if there are no weights.
    """
    if sha256 is not None and weights is None:
        raise ValueError(
            "encoder_sha256 is the digest of encoder_weights, which is null; set it, or remove the digest"
        )
