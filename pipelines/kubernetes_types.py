"""Types of values in a cluster file, validated by Kubernetes' rules: quantities, names, labels and images.

They are checked early, because Kubernetes would refuse a pod long after the run was submitted.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


def _cores(text: str) -> str:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?|[0-9]+m", text) or not re.search("[1-9]", text):
        raise PydanticCustomError("cores", "must be a number of cores above 0, e.g. 4, 0.5 or 500m")
    return text


def _size(text: str) -> str:
    # Units that both Kubernetes and kfp accept; a number without a unit would mean bytes.
    if not re.fullmatch(r"[1-9][0-9]*([KMGT]i|[MGT])", text):
        raise PydanticCustomError("size", "must be an integer with a unit (Mi, Gi, Ti), e.g. 512Mi or 8Gi")
    return text


def bytes_of(size: str) -> int:
    """Returns the bytes of a ``Size``."""
    number, unit = re.fullmatch("([0-9]+)(.*)", size).groups()  # type: ignore[union-attr]
    return int(number) * (1024 if unit.endswith("i") else 1000) ** (" KMGT".index(unit[0]))


def _as_text(value: Any) -> Any:
    """Returns a number from YAML as text, as Kubernetes requires."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Cores = Annotated[str, BeforeValidator(_as_text), AfterValidator(_cores)]
Size = Annotated[str, BeforeValidator(_as_text), AfterValidator(_size)]


def _matches(pattern: str, remedy: str) -> AfterValidator:
    """Returns a validator of a regular expression; ``remedy`` is its error message."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise PydanticCustomError("form", remedy)
        return text

    return AfterValidator(check)


NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"  # of a label or annotation
_PART = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DOMAIN = rf"(?![^/]{{254}}){_PART}(\.{_PART})*"  # before the slash of a key; also a name of most objects
KEY = f"({DOMAIN}/)?{NAME}"  # of a label or annotation
IN_NAMES = "at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"
Variable = Annotated[
    str, _matches("[-._A-Za-z][-._A-Za-z0-9]*", "must have letters, digits, `_`, `-` and `.`, e.g. AWS_REGION")
]
Secret = Annotated[
    str,
    _matches(
        DOMAIN,
        "must have lower-case letters, digits, `-` and `.`, with a letter or digit beside each dot and at both "
        "ends, e.g. maskcast-s3",
    ),
]
Volume = Annotated[
    str,
    _matches(
        DNS_LABEL,
        "must have at most 63 lower-case letters, digits and `-`, because Kubeflow names the volume after it; "
        "copy it to another name",
    ),
]
LabelKey = Annotated[str, _matches(KEY, f"must be NAME or domain.example.com/NAME, where NAME has {IN_NAMES}")]
LabelValue = Annotated[str, _matches(f"({NAME})?", f"must have {IN_NAMES}")]
Resource = Annotated[str, _matches(f"{DOMAIN}/{NAME}", "must be domain/NAME, e.g. nvidia.com/gpu")]
Image = Annotated[
    str,
    _matches(
        r"([\w.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:\w[\w.-]*)?(@sha256:[0-9a-f]{64})?",
        "must be registry/name@sha256: with 64 hexadecimal digits, and a name in lower case",
    ),
]
