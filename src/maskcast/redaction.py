"""Secrets never leave the process: every line, tag, page and error passes through ``redacted``.

Two things are hidden: what an address has before its host (``https://user:password@host``), and the values of
those environment variables that hold secrets, wherever they stand.
"""

import os
import re
from urllib.parse import quote

HIDDEN = "***"
SHORTEST = 8  # characters of a variable's value: a shorter one is a word that other texts have, too
SECRET = re.compile(r"PASS(WORD|WD|PHRASE)?$|TOKEN|SECRET|PRIVATE_?KEY|API_?KEY|CREDENTIAL|AUTHORIZATION", re.I)
NO_SECRET = re.compile(r"_(FILE|PATH|URI|URL|PROCESS|SOURCE)$", re.I)  # says where one is
# Up to the last @ of a word: a password may hold / and @ itself. The end of a scheme will do: without a bound a
# long word takes the square of its length.
ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)(?P<user>[^\s\"'<>]*)@", re.I)
SERVERS = frozenset({"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"})
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and end of line
HOST = re.compile(r"[\w.-]+(:\d+)?/|\[[\da-f:]+\](:\d+)?/|/", re.I)
QUERY = re.compile(
    r"([?&][\w.-]*(?:token|passw|secret|signature|sig|api_?key|credential)[\w.-]*=)[^&\s\"'<>]+", re.I
)


def redacted(text: str) -> str:
    """Returns a text without the secrets in it."""
    for value in _known():
        text = text.replace(value, HIDDEN)
    text = QUERY.sub(rf"\1{HIDDEN}", text)
    return ADDRESS.sub(_without_user, text)


def as_written(text: str) -> str:
    """Returns what somebody wrote (a reason, a name, a note) as a terminal shows it, and does not obey it."""
    return CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", redacted(text))


def has_user(address: str) -> bool:
    """Tells whether an address names a user, a password or a token before its host."""
    return ADDRESS.sub(_without_user, address) != address


def _without_user(match: re.Match[str]) -> str:
    return f"{match['scheme']}{HIDDEN}@" if _is_user(match) else match[0]


def _is_user(match: re.Match[str]) -> bool:
    """Tells user:pass/word@host from host/path@2x.png and host:80/path@2x.png, which have no user."""
    return not HOST.match(match["user"])


def _known() -> list[str]:
    """Returns the values of the environment's secrets, as they are and as addresses have them, longest first."""
    values = set()
    for name in list(os.environ):
        value = os.environ.get(name, "")  # MLflow's threads remove variables while this one looks at them
        value = value.strip()  # a secret may end in a line break, which an error shows as `\n`
        if SECRET.search(name) and not NO_SECRET.search(name) and len(value) >= SHORTEST:
            values |= {value, quote(value, safe=""), quote(value)}
        values |= {match["user"] for match in ADDRESS.finditer(value) if name in SERVERS or _is_user(match)}
    passwords = {value.partition(":")[2] for value in values if ":" in value}
    values |= {value for value in passwords if len(value) >= SHORTEST}
    return sorted(values - {""}, key=len, reverse=True)
