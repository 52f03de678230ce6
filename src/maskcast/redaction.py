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
# Up to the last @ of a word: a password may hold / and @ itself.
ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^\s\"'<>]*)@", re.I)
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


def has_user(address: str) -> bool:
    """Tells whether an address names a user, a password or a token before its host."""
    return ADDRESS.sub(_without_user, address) != address


def _without_user(match: re.Match[str]) -> str:
    user = match["user"]
    # host/path@2x.png and host:80/path@2x.png have no user, user:pass/word@host has
    return match[0] if HOST.match(user) else f"{match['scheme']}{HIDDEN}@"


def _known() -> list[str]:
    """Returns the values of the environment's secrets, as they are and as addresses have them, longest first."""
    values = set()
    for name, value in os.environ.items():
        if SECRET.search(name) and not NO_SECRET.search(name) and len(value) >= SHORTEST:
            values |= {value, quote(value, safe=""), quote(value)}
        values |= {match["user"] for match in ADDRESS.finditer(value) if not HOST.match(match["user"])}
    passwords = {value.partition(":")[2] for value in values if ":" in value}
    values |= {value for value in passwords if len(value) >= SHORTEST}
    return sorted(values - {""}, key=len, reverse=True)
