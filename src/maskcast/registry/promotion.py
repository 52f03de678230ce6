"""Promotion: moves the aliases ``champion`` and ``previous``, one user at a time, with an audit trail.

MLflow has no compare-and-swap for aliases, but it numbers the versions of a registered model atomically. So each
decision is a version of a second registered model, ``<name>-promotions``. A user reads its last version number,
then the aliases, and then creates a version. If it gets the next number, the user may move the aliases. Otherwise
another user was faster, and the attempt fails. These versions are the audit trail, including failed attempts;
their source is the promoted version.
"""

import getpass
import os
import time
from contextlib import suppress
from typing import Literal

from maskcast.errors import MaskcastError
from maskcast.registry.audit_trail import Decision, champion_for, decisions, trail_name
from maskcast.registry.store import CANDIDATE, CHAMPION, PREVIOUS, Registry, Version

ABANDONED_S = 60  # an open decision of this age counts as killed; clocks must not differ by more
TRAIL_DESCRIPTION = (
    "The audit trail of {}: each version is a promotion or a rollback, and its tags say who, why and how it ended."
)

Action = Literal["promote", "rollback"]


def promote(name: str, which: str, reason: str, force: bool) -> Decision:
    """Makes a version the champion, and the champion the previous one.

    Args:
        name: the registered model.
        which: number or alias.
        reason: why; it is recorded.
        force: overrules the gate, which requires a reason.

    Raises:
        MaskcastError: the version does not exist, it is already champion, it did not pass the gate or was compared
            with another champion, the gate is overruled without a reason, or another user decides at the same
            time.
    """
    if force and not reason.strip():
        raise MaskcastError("promote: --force overrules the gate and needs a reason; give --reason TEXT")
    transaction = Transaction(name)
    version = transaction.registry.find(which)
    if CHAMPION in version.aliases:
        raise MaskcastError(f"{name}: version {version.number} is already the champion")
    if not force:
        _check_gate(transaction.registry, version)
    return transaction.decide("promote", version, reason.strip())


def rollback(name: str, reason: str = "") -> Decision:
    """Makes the previous version the champion again, and the champion the previous one.

    Args:
        name: the registered model.
        reason: why; it is recorded.

    Raises:
        MaskcastError: there is no previous version, it equals the champion after a killed decision, or another
            user decides at the same time.
    """
    transaction = Transaction(name)
    if not transaction.registry.versions():
        raise transaction.registry.no_models_error()
    if PREVIOUS not in transaction.registry.aliases():
        raise MaskcastError(f"{name}: no version has the alias {PREVIOUS!r}; promote twice before a rollback")
    version = transaction.registry.find(PREVIOUS)
    if version.number == transaction.champion:
        raise MaskcastError(
            f"{name}: version {version.number} is the champion and {PREVIOUS!r}, because a decision was killed; "
            "find the earlier champion with `maskcast models list`, and run `maskcast models promote NUMBER`"
        )
    return transaction.decide("rollback", version, reason.strip())


class Transaction:
    """The state on which a decision is based: the last decision, and the champion after it.

    Raises:
        MaskcastError: another user's decision is under way.
    """

    def __init__(self, name: str) -> None:
        self.registry, self._trail = Registry(name), Registry(trail_name(name))
        last = next(iter(decisions(name)), None)
        if last is not None and last.outcome == "open":
            if time.time() - last.created_ms / 1000 < ABANDONED_S:
                raise MaskcastError(
                    f"{name}: conflict with a decision of {last.user} that is not complete ({last.action} version "
                    f"{last.version}); check `maskcast models list` in a minute and try again"
                )
            self._trail.tag(last.number, {"maskcast.outcome": "abandoned"})
        self._last = last.number if last else 0
        self.champion = self.registry.aliases().get(CHAMPION, 0)  # read after the last decision: not older

    def decide(self, action: Action, version: Version, reason: str) -> Decision:
        """Moves the aliases, unless another user has decided since the state was read.

        Raises:
            MaskcastError: another user has, which the message describes; or the version's files do not exist.
        """
        name = self.registry.name
        self.registry.files(version)  # fails if they do not exist: such a champion would be unusable
        entry = {
            "maskcast.action": action,
            "maskcast.version": str(version.number),
            "maskcast.champion": str(self.champion),
            "maskcast.user": os.environ.get("MLFLOW_TRACKING_USERNAME") or _user(),
            "maskcast.reason": reason,
            "maskcast.outcome": "open",
        }
        number = self._trail.create(
            f"models:/{name}/{version.number}", None, entry, purpose=TRAIL_DESCRIPTION.format(name)
        )
        if number != self._last + 1:
            self._trail.tag(number, {"maskcast.outcome": "overtaken"})
            first = next((each for each in decisions(name) if each.number == self._last + 1), None)
            if first is None:
                cause = f"decision {self._last + 1} was deleted from {self._trail.name}"
            else:
                cause = f"{first.user} was first (decision {first.number}: {first.action} version {first.version})"
            raise MaskcastError(
                f"{name}: conflict: {cause}; your decision has no effect: check `maskcast models list` and try "
                "again"
            )
        if self.champion:
            self.registry.set_alias(PREVIOUS, self.champion)
        elif PREVIOUS in version.aliases:  # the champion's alias was removed by other means
            self.registry.drop_alias(PREVIOUS)
        self.registry.set_alias(CHAMPION, version.number)
        if CANDIDATE in version.aliases:
            self.registry.drop_alias(CANDIDATE)
        self._trail.tag(number, {"maskcast.outcome": "done"})
        now = self.registry.aliases().get(CHAMPION)
        if now != version.number:
            raise MaskcastError(
                f"{name}: alias {CHAMPION} is on version {now}, not {version.number}: it was moved without "
                "maskcast; check `maskcast models list` and try again"
            )
        return next(each for each in decisions(name) if each.number == number)


def _user() -> str:
    """Returns the user of this process; in a container it may be a number without a name."""
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return f"user {os.getuid()}"


def _check_gate(registry: Registry, version: Version) -> None:
    name = version.tags.get("maskcast.name", version.tags.get("maskcast.stage", "register_models"))
    remedy = f"run {name} again, or overrule it with --force --reason TEXT"
    verdict = version.tags.get("maskcast.verdict")
    if verdict != "passed":
        fault = "did not pass the gate" if verdict else "was not checked by a gate"
        raise MaskcastError(f"{version.name}: version {version.number} {fault}; {remedy}")
    champion = champion_for(registry, version.tags.get("maskcast.data", ""))
    now = None if champion is None or champion.digest == version.digest else champion.number
    if version.gate.get("champion") != now:
        against = version.gate.get("champion") or "no champion"
        raise MaskcastError(
            f"{version.name}: the gate compared version {version.number} with {against}, but the champion is now "
            f"{now or 'none'}; {remedy}"
        )
