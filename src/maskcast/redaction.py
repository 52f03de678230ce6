"""Removes secrets: every message, tag, page and error passes through ``redacted``.

Hidden are the user part of addresses (``https://user:password@host``), other credentials that are known by their
form (``Bearer ...``, ``AccountKey=...``), and the values of environment variables that contain secrets.
"""

import os
import re
from functools import lru_cache
from urllib.parse import quote

HIDDEN = "***"
SHORTEST = 8  # minimum length of a secret value: shorter ones may be ordinary words
SECRET = re.compile(
    r"PASSW(OR)?D|PASSPHRASE|(^|_)PASS$|TOKEN(?!IZER)|SECRET|CREDENTIAL|AUTHORIZATION|COOKIE|CONNECTION_?STRING"
    r"|(ACCESS|ACCOUNT|API|ENCRYPTION|PRIVATE|SIGNING|STORAGE)_?KEY(?!_?ID)",
    re.I,
)
# these only point to a secret
NO_SECRET = re.compile(r"_(DIR|FILE|PATH|URI|URL|PROCESS|SOURCE)$|^GOOGLE_APPLICATION_CREDENTIALS$", re.I)
POINTER = re.compile(r"/|[a-z][a-z0-9+.-]*://", re.I)  # how a path or an address begins
# Up to the last @ of a word, because a password may contain / and @. The scheme has a maximum length, else a long
# word would take quadratic time.
ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)(?P<user>[^\s\"'<>]*)@", re.I)
SERVERS = frozenset({"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"})
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # control characters except tab and newline
HOST = re.compile(r"[\w.-]+(:\d+)?/|\[[\da-f:]+\](:\d+)?/|/", re.I)
QUERY = re.compile(
    r"([?&][\w.-]*(?:token|passw|secret|signature|sig|api_?key|credential)[\w.-]*=)[^&\s\"'<>]+", re.I
)
# Credentials by their form: of a header, of a connection string, and a private key.
FORMS = re.compile(
    r"(\bBearer\s+)[\w.~+/-]{16,}=*|(\bBasic\s+)(?=\S*[\d+/=])[\w+/-]{16,}=*"
    r"|(\b(?:AccountKey|SharedAccessKey|SharedAccessSignature|Password|Pwd)=)[^\s;&\"'<>]+"
    r"|(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^-]+"
)


def redacted(text: str) -> str:
    """Returns a text with its secrets hidden."""
    for value in _secret_values():
        text = text.replace(value, HIDDEN)
    return _without_credentials(text)


def is_secret(name: str, value: str) -> bool:
    """Whether a variable contains a secret, by its name or by the form of its value; a path to one is none."""
    is_pointer = NO_SECRET.search(name) is not None and POINTER.match(value) is not None
    return (SECRET.search(name) is not None and not is_pointer) or _without_credentials(value) != value


def printable(text: str) -> str:
    """Returns a user's text without secrets, with control characters escaped, so that a terminal only shows it."""
    return CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", redacted(text))


def has_user(address: str) -> bool:
    """Whether an address has a user, password or token before its host."""
    return ADDRESS.sub(_without_user, address) != address


def _without_credentials(text: str) -> str:
    text = QUERY.sub(rf"\1{HIDDEN}", text)
    text = FORMS.sub(lambda match: f"{next(filter(None, match.groups()))}{HIDDEN}", text)
    return ADDRESS.sub(_without_user, text)


def _without_user(match: re.Match[str]) -> str:
    return f"{match['scheme']}{HIDDEN}@" if _is_user(match) else match[0]


def _is_user(match: re.Match[str]) -> bool:
    """Whether a match has a user, as in user:pass/word@host, unlike host/path@2x.png and host:80/path@2x.png."""
    return not HOST.match(match["user"])


def _secret_values() -> tuple[str, ...]:
    """Returns the secret values of the environment, plain and URL-quoted, longest first."""
    # MLflow's threads may remove variables during this loop
    return _secrets_of(tuple((name, os.environ.get(name, "")) for name in list(os.environ)))


@lru_cache(maxsize=8)  # the environment rarely changes, and a page or a run has a hundred texts
def _secrets_of(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    values = set()
    for name, text in environment:
        value = text.strip()  # messages show its line break as `\n`
        if SECRET.search(name) and not NO_SECRET.search(name) and len(value) >= SHORTEST:
            values |= {value, quote(value, safe=""), quote(value)}
        values |= {match["user"] for match in ADDRESS.finditer(value) if name in SERVERS or _is_user(match)}
    passwords = {value.partition(":")[2] for value in values if ":" in value}
    values |= {value for value in passwords if len(value) >= SHORTEST}
    return tuple(sorted(values - {""}, key=len, reverse=True))
