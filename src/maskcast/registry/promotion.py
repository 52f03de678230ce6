"""Promotion: moves the aliases ``champion`` and ``previous``, one person at a time, and writes down who did it.

MLflow moves an alias without asking what it pointed to. What its API does do whole is to number the versions of a
registered model. So each decision is a version of a second one, ``<name>-promotions``: whoever gets the number
after the last one that they saw before they read the aliases may move them; anybody else was overtaken and is
told. These versions are the audit trail, overtaken attempts included; their source is what was promoted.
"""

import getpass
import os
import time
from contextlib import suppress
from typing import Literal

from maskcast.errors import MaskcastError
from maskcast.registry.store import CANDIDATE, CHAMPION, PREVIOUS, Registry, Version
from maskcast.registry.trail import Decision, decisions, series_champion, trail_of

ABANDONED_S = 60  # a decision that takes longer was killed; clocks must not differ by more
TRAIL = (
    "The audit trail of {}: each version is a promotion or a rollback, and its tags say who, why and how it ended."
)

Action = Literal["promote", "rollback"]


def promote(name: str, which: str, reason: str, force: bool) -> Decision:
    """Makes a version the champion, and the champion the previous one.

    Args:
        name: the registered model.
        which: number or alias.
        reason: why; it is written down.
        force: overrules the gate, which takes a reason.

    Raises:
        MaskcastError: there is no such version, it is the champion, the gate did not let it pass or held it
            against another champion, it is overruled without a reason, or somebody else decides at the same time.
    """
    if force and not reason.strip():
        raise MaskcastError("promote: overruling the gate takes a reason; give --reason TEXT with --force")
    turn = Turn(name)
    version = turn.registry.find(which)
    if CHAMPION in version.aliases:
        raise MaskcastError(f"{name}: version {version.number} is the champion already")
    if not force:
        _check_gate(turn.registry, version)
    return turn.decide("promote", version, reason.strip())


def rollback(name: str, reason: str = "") -> Decision:
    """Makes the previous version the champion again, and the champion the previous one.

    Args:
        name: the registered model.
        reason: why; it is written down.

    Raises:
        MaskcastError: there is no previous version, a decision that was killed has left the champion as that, or
            somebody else decides at the same time.
    """
    turn = Turn(name)
    if not turn.registry.versions():
        raise turn.registry.empty()
    if PREVIOUS not in turn.registry.aliases():
        raise MaskcastError(f"{name}: no version has the alias {PREVIOUS!r}; promote twice before a rollback")
    version = turn.registry.find(PREVIOUS)
    if version.number == turn.champion:
        raise MaskcastError(
            f"{name}: version {version.number} is the champion and {PREVIOUS!r}, as a decision leaves it that is "
            "killed; `maskcast models list` tells what was before, `maskcast models promote` takes its number"
        )
    return turn.decide("rollback", version, reason.strip())


class Turn:
    """What one person knows when they decide: the last decision, and the champion after it.

    Raises:
        MaskcastError: somebody else's decision is under way.
    """

    def __init__(self, name: str) -> None:
        self.registry, self._trail = Registry(name), Registry(trail_of(name))
        last = next(iter(decisions(name)), None)
        if last is not None and last.outcome == "open":
            if time.time() - last.created_ms / 1000 < ABANDONED_S:
                raise MaskcastError(
                    f"{name}: {last.user} is about to {last.action} version {last.version}; "
                    "look at `maskcast models list` in a minute and decide again"
                )
            self._trail.tag(last.number, {"maskcast.outcome": "abandoned"})
        self._last = last.number if last else 0
        self.champion = self.registry.aliases().get(CHAMPION, 0)  # read after the last decision: it is no older

    def decide(self, action: Action, version: Version, reason: str) -> Decision:
        """Moves the aliases, unless somebody else has decided since this turn began.

        Raises:
            MaskcastError: if so; the line says what they did. Or the version's files are gone.
        """
        name = self.registry.name
        self.registry.files(version)  # nobody could use a champion without them
        entry = {
            "maskcast.action": action,
            "maskcast.version": str(version.number),
            "maskcast.champion": str(self.champion),
            "maskcast.user": os.environ.get("MLFLOW_TRACKING_USERNAME") or _user(),
            "maskcast.reason": reason,
            "maskcast.outcome": "open",
        }
        number = self._trail.create(f"models:/{name}/{version.number}", None, entry, purpose=TRAIL.format(name))
        if number != self._last + 1:
            self._trail.tag(number, {"maskcast.outcome": "overtaken"})
            first = next((each for each in decisions(name) if each.number == self._last + 1), None)
            if first is None:
                was = f"decision {self._last + 1} was deleted from {self._trail.name}"
            else:
                was = f"{first.user} was first (decision {first.number}: {first.action} version {first.version})"
            raise MaskcastError(
                f"{name}: {was}; nothing of yours was done: look at `maskcast models list` and decide again"
            )
        if self.champion:
            self.registry.set_alias(PREVIOUS, self.champion)
        elif PREVIOUS in version.aliases:  # somebody has dropped the champion by other means
            self.registry.drop_alias(PREVIOUS)
        self.registry.set_alias(CHAMPION, version.number)
        if CANDIDATE in version.aliases:
            self.registry.drop_alias(CANDIDATE)
        self._trail.tag(number, {"maskcast.outcome": "done"})
        now = self.registry.aliases().get(CHAMPION)
        if now != version.number:
            raise MaskcastError(
                f"{name}: {CHAMPION} points to {now}, not to {version.number}: somebody moved it by other means; "
                "look at `maskcast models list` and decide again"
            )
        return next(each for each in decisions(name) if each.number == number)


def _user() -> str:
    """Returns who runs this process; a container may run as a number that has no name."""
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return f"user {os.getuid()}"


def _check_gate(registry: Registry, version: Version) -> None:
    name = version.tags.get("maskcast.name", version.tags.get("maskcast.stage", "register_models"))
    remedy = f"run {name} again, or overrule it with --force --reason TEXT"
    verdict = version.tags.get("maskcast.verdict")
    if verdict != "passed":
        told = "did not pass the gate" if verdict else "never stood at the gate"
        raise MaskcastError(f"{version.name}: version {version.number} {told}; {remedy}")
    champion = series_champion(registry, version.tags.get("maskcast.data", ""))
    now = None if champion is None or champion.digest == version.digest else champion.number
    if version.gate.get("champion") != now:
        against = version.gate.get("champion") or "no champion"
        raise MaskcastError(
            f"{version.name}: the gate held version {version.number} against {against}, "
            f"the champion is now {now or 'none'}; {remedy}"
        )
