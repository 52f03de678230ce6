"""Remedies for unknown names: what may have been meant, and what is allowed."""

from collections.abc import Iterable

MANY = 30  # more names than these are only listed if none is similar


def suggestion(word: str, allowed: Iterable[str], meant: str | None = None) -> str:
    """Returns the remedy for an unknown word: the most similar name, and the allowed names.

    Args:
        word: the unknown word.
        allowed: names that are allowed; if they are many and one is similar, they are not listed.
        meant: what the word is taken for; by default the most similar name.
    """
    names = list(allowed)
    near = meant or closest_match(word, names)
    hint = f"did you mean {near!r}?" if near else ""
    return hint if hint and len(names) > MANY else f"{hint} allowed: {', '.join(names)}".lstrip()


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Returns the most similar name as the end of a message, after a semicolon; empty if none is similar."""
    near = closest_match(word, names)
    return f"; did you mean {near!r}?" if near else ""


def closest_match(word: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Returns the most similar name, if its similarity (``difflib``) to the word is at least ``cutoff``.

    Letters in upper and lower case are equal, and so are ``-`` and ``_``.
    """
    import difflib  # only needed for errors

    by_spelling = {_plain(name): name for name in names}
    return next(map(by_spelling.get, difflib.get_close_matches(_plain(word), by_spelling, 1, cutoff)), None)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
